"""Pulled variables (``--pull name[@rank]``): what each rank sends, and whether the ranks agree."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cloudpickle
import numpy as np

from paibook.errors import PlanError

SMALL_BYTES = 64 << 10

Wanted = tuple[tuple[str, int | None], ...]  # names, each with the rank that sends it; None: the lowest


@dataclass(frozen=True)
class Sent:
    """A pulled variable as one rank sends it.

    Attributes:
        digest: SHA-256 of its pickle.
        data: The pickle; None where another rank sends it and it is above 64 KiB.
    """

    digest: bytes
    data: bytes | None


@dataclass(frozen=True)
class Parcel:
    """What one rank sends.

    Attributes:
        values: Pulled variables by name: pickles, or fingerprints where another rank sends the value.
        missing: Names that this rank does not have, or cannot send, with the reason.
    """

    values: Mapping[str, Sent] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)


def parse(words: Sequence[str]) -> Wanted:
    """Read ``name`` and ``name@rank`` words.

    Raises:
        PlanError: A word that is neither.
    """
    wanted = []
    for word in words:
        name, separator, rank = word.partition("@")
        if not name.isidentifier() or (separator and not rank.isdecimal()):
            raise PlanError(f"--pull takes variable names such as w or w@1; got {word!r}")
        wanted.append((name, int(rank) if separator else None))
    return tuple(wanted)


def pack(namespace: Mapping[str, Any], rank: int, wanted: Wanted, ranks: Collection[int]) -> Parcel:
    """Pick from a rank's variables what it sends.

    Args:
        ranks: All ranks that take part.
    """
    values: dict[str, Sent] = {}
    missing: dict[str, str] = {}
    for name, source in wanted:
        if source not in (None, rank):
            continue
        if name not in namespace:
            missing[name] = "it has no such variable"
            continue
        try:
            values[name] = sent(namespace[name], whole=rank == (min(ranks) if source is None else source))
        except TypeError as error:
            missing[name] = str(error)
    return Parcel(values, missing)


def unpack(wanted: Wanted, parcels: Mapping[int, Parcel]) -> tuple[dict[str, Any], frozenset[str]]:
    """The values by name, and the names whose values disagree between ranks.

    Raises:
        PlanError: A rank did not have a variable, or could not send it.
    """
    pulled: dict[str, Any] = {}
    differs: set[str] = set()
    for name, source in wanted:
        for rank, parcel in sorted(parcels.items()):
            if name in parcel.missing:
                raise PlanError(f"--pull {name}: rank {rank}: {parcel.missing[name]}")
        parts = {rank: parcel.values[name] for rank, parcel in parcels.items() if name in parcel.values}
        data = parts[min(parcels) if source is None else source].data
        assert data is not None
        pulled[name] = cloudpickle.loads(data)
        if source is None and not agree(parts):
            differs.add(name)
    return pulled, frozenset(differs)


def sent(value: Any, whole: bool) -> Sent:
    """What a rank sends of a variable.

    Raises:
        TypeError: It cannot be pickled.
    """
    try:
        data = cloudpickle.dumps(value, protocol=5)
    except Exception as error:  # user objects may fail to pickle in any way at all
        raise TypeError(f"a {type(value).__name__} cannot be sent: {error}") from error
    return Sent(hashlib.sha256(data).digest(), data if whole or len(data) <= SMALL_BYTES else None)


def agree(parts: Mapping[int, Sent]) -> bool:
    """Whether all ranks sent the same value.

    Equal values may pickle differently (sets, dicts filled in another order), so small ones are compared themselves.
    """
    if len({part.digest for part in parts.values()}) <= 1:
        return True
    if any(part.data is None for part in parts.values()):
        return False
    first, *others = [cloudpickle.loads(part.data) for part in parts.values()]
    return all(_equal(first, other) for other in others)


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        return bool(np.array_equal(left, right))
    try:
        return type(left) is type(right) and bool(left == right)
    except Exception:  # a user's __eq__ may raise, or give an array that has no truth value
        return False
