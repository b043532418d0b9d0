"""The order of keys: which can be compared with each other, for certain, before any is."""

from __future__ import annotations

import dataclasses
import datetime
import uuid
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import zip_longest
from operator import ne
from typing import Any

import numpy

NAN = float("nan")
# What all keys of a list can be compared as: a name, or one for each place of a tuple.
Kind = Any
_FAMILIES: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("str", (str,)),
    ("real", (int, float, numpy.integer, numpy.floating, numpy.bool_)),
    ("bytes", (bytes,)),
    ("none", (type(None),)),
    ("datetime", (datetime.datetime,)),
    ("date", (datetime.date,)),
    ("time", (datetime.time,)),
    ("timedelta", (datetime.timedelta,)),
    ("decimal", (Decimal,)),
    ("fraction", (Fraction,)),
    ("uuid", (uuid.UUID,)),
    ("tuple", (tuple,)),
)


def kind_of(keys: Sequence[Any]) -> Kind | None:
    """What the keys can be compared as; None where some could not be, or where it is not known."""
    kind = _kind_within_tuples(keys)
    return None if kind == "none" else kind


def _kind_within_tuples(keys: Sequence[Any]) -> Kind | None:
    """As ``kind_of``; None itself will do, since tuples do not compare what is equal."""
    types = set(map(type, keys))
    families = {_family(kind) for kind in types}
    if len(families) != 1 or None in families:
        return _kind_of_dataclass(keys, types)
    family = families.pop()
    if family == "tuple":
        return _kind_of_tuples(keys)
    if family not in ("str", "bytes", "none") and not types <= {int, bool} and any(map(ne, keys, keys)):
        return None  # NaN, NaT: greater than nothing, less than nothing
    if family in ("datetime", "time"):
        aware = {key.utcoffset() is not None for key in keys}
        return None if len(aware) > 1 else f"{family} {aware.pop()}"
    return family


def common_kind(kinds: Sequence[Kind | None]) -> Kind | None:
    """What keys of all these kinds can be compared as; None where they cannot."""
    made = kinds[0]
    for kind in kinds[1:]:
        made = _joined(made, kind)
    return made


def with_one_nan(keys: list[Any]) -> list[Any]:
    """The keys, each NaN replaced by the same object: a NaN equals nothing but itself."""
    if any(issubclass(kind, (float, numpy.floating)) for kind in set(map(type, keys))) and any(map(ne, keys, keys)):
        return [NAN if isinstance(key, (float, numpy.floating)) and key != key else key for key in keys]
    return keys


def _family(kind: type) -> str | None:
    if issubclass(kind, numpy.timedelta64):  # which numpy counts among the whole numbers
        return None
    for name, owners in _FAMILIES:
        if issubclass(kind, owners):
            # A class may compare in a way of its own, which need not agree with its equality.
            known = kind.__module__.partition(".")[0] in ("numpy", "pandas")
            owner = next(owner for owner in owners if issubclass(kind, owner))
            return name if known or kind.__lt__ is owner.__lt__ else None  # type: ignore[operator]
    return None


def _kind_of_tuples(keys: Sequence[Any]) -> Kind | None:
    widths = set(map(len, keys))
    if len(widths) == 1:
        columns: list[Sequence[Any]] = list(zip(*keys, strict=True))
    else:
        columns = [[key[place] for key in keys if len(key) > place] for place in range(max(widths))]
    kinds = tuple(map(_kind_within_tuples, columns))
    return None if None in kinds else kinds


def _kind_of_dataclass(keys: Sequence[Any], types: set[type]) -> Kind | None:
    kind = next(iter(types), object)
    if len(types) != 1 or not dataclasses.is_dataclass(kind):
        return None
    if not kind.__dataclass_params__.order:  # type: ignore[attr-defined]
        return None
    names = [field.name for field in dataclasses.fields(kind) if field.compare]
    inner = _kind_of_tuples([tuple(getattr(key, name) for name in names) for key in keys])
    return None if inner is None else (f"dataclass {kind.__module__}.{kind.__qualname__}", *inner)


def _joined(one: Kind | None, other: Kind | None) -> Kind | None:
    if one == other:
        return one
    if not isinstance(one, tuple) or not isinstance(other, tuple):
        return None
    places = [a if b is _ABSENT else b if a is _ABSENT else _joined(a, b) for a, b in _pairs(one, other)]
    return None if None in places else tuple(places)


_ABSENT = object()


def _pairs(one: tuple[Any, ...], other: tuple[Any, ...]) -> list[tuple[Any, Any]]:
    return list(zip_longest(one, other, fillvalue=_ABSENT))
