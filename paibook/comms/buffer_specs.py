"""mpi4py's ways to say which part of a buffer an operation means: ``[buffer, counts, displacements, datatype]``.

One part: ``buffer``, ``[buffer, datatype]``, ``[buffer, count]``, ``[buffer, count, datatype]``.
A part per rank: ``[buffer, counts]``, ``[buffer, counts, displs]``, ``[buffer, (counts, displs)]``; the datatype, if
any, at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from paibook.comms.buffers import flat
from paibook.comms.datatypes import BYTE, Datatype, known
from paibook.comms.operators import Array


@dataclass(frozen=True)
class Blocks:
    """A buffer with a part for each rank, in elements.

    Attributes:
        array: All of it, flat.
        counts: Elements of each part.
        displs: Where each begins.
    """

    array: Array
    counts: tuple[int, ...]
    displs: tuple[int, ...]

    def of(self, rank: int) -> Array:
        """One rank's part, a view."""
        return self.array[self.displs[rank] : self.displs[rank] + self.counts[rank]]


def one_part(spec: Any, name: str, writable: bool = False, ranks: int = 1) -> Array:
    """The memory that a buffer or a spec of one part means, flat.

    Args:
        spec: See the module's text.
        name: What the operation calls it, for messages.
        writable: Whether the operation writes to it.
        ranks: A count is one rank's; the memory holds this many times as much.

    Raises:
        TypeError, ValueError: Not a buffer, or less of it than the spec says.
    """
    array, rest = _split(spec, name, writable)
    if not rest or rest[0] is None:
        return array
    count, start = rest[0] if isinstance(rest[0], tuple) else (rest[0], 0)
    if len(rest) > 1 or not isinstance(count, Integral) or not isinstance(start, Integral):
        raise ValueError(f"{name} takes [buffer, count, datatype] here, with one count; got counts {rest!r}")
    begin = int(start)
    end = begin + int(count) * ranks
    if not 0 <= begin <= end <= array.size:
        raise ValueError(f"{name}: elements {begin} to {end} were asked for; the buffer has {array.size}")
    return array[begin:end]


def parts(spec: Any, name: str, ranks: int, writable: bool = False) -> Blocks:
    """The parts, one per rank, that a buffer or a spec means; without counts the buffer is divided evenly.

    Raises:
        TypeError, ValueError: Not a buffer, not one count per rank, or a part outside the buffer.
    """
    array, rest = _split(spec, name, writable)
    counts, displs = _counts_and_displs(rest, name, ranks)
    if counts is None:
        counts = [array.size // ranks + (rank < array.size % ranks) for rank in range(ranks)]
    spread = _per_rank(counts, f"{name}: counts", ranks)
    begins = (0, *np.cumsum(spread)[:-1].tolist()) if displs is None else _per_rank(displs, f"{name}: displs", ranks)
    for rank, (count, begin) in enumerate(zip(spread, begins, strict=True)):
        if count < 0 or begin < 0 or (count and begin + count > array.size):
            raise ValueError(
                f"{name}: rank {rank}'s part is elements {begin} to {begin + count}; the buffer has {array.size}. "
                "Counts and displacements are in elements"
            )
    return Blocks(array, spread, begins)


def _split(spec: Any, name: str, writable: bool) -> tuple[Array, list[Any]]:
    """A spec's memory as its datatype, and its counts."""
    if not isinstance(spec, (list, tuple)) or not spec or isinstance(spec[0], (int, float, complex)):
        return flat(spec, name, writable), []
    buffer, *rest = spec
    datatype = known(rest[-1]) if rest else None
    if datatype is not None:
        rest.pop()
    if len(rest) > 2:
        raise ValueError(f"{name} takes [buffer, counts, displs, datatype]; got {len(rest)} things between the two")
    array = flat(buffer, name, writable)
    return (array if datatype is None else _typed(array, datatype, name)), rest


def _typed(array: Array, datatype: Datatype, name: str) -> Array:
    if array.dtype == datatype.dtype:
        return array
    raw = array.view(np.uint8)
    if datatype.dtype == BYTE.dtype:
        return raw
    fields = datatype.dtype.names or ()
    pairs_of_one_type = bool(fields) and all(datatype.dtype[field] == array.dtype for field in fields)
    plain_bytes = array.dtype.itemsize == 1 and array.dtype.kind in "uSV"
    if not (plain_bytes or pairs_of_one_type or array.dtype.itemsize == datatype.size == 1):
        raise TypeError(
            f"{name} holds {array.dtype}, and {datatype!r} was given; leave the datatype out, or give the buffer's own"
        )
    if raw.size % datatype.size:
        raise ValueError(f"{name} has {raw.size} bytes, which is no whole number of {datatype!r}")
    return raw.view(datatype.dtype)


def _counts_and_displs(rest: list[Any], name: str, ranks: int) -> tuple[Any, Any]:
    if not rest:
        return None, None
    if len(rest) == 2:
        return rest[0], rest[1]
    both = rest[0]
    if isinstance(both, tuple) and len(both) == 2 and not all(isinstance(item, Integral) for item in both):
        return both
    return both, None


def _per_rank(values: Any, name: str, ranks: int) -> tuple[int, ...]:
    if isinstance(values, Integral):
        return (int(values),) * ranks
    listed = list(values) if isinstance(values, (Sequence, np.ndarray)) else None
    if listed is None or not all(isinstance(value, Integral) for value in listed):
        raise TypeError(f"{name} must be whole numbers, one per rank; got {values!r}")
    if len(listed) != ranks:
        raise ValueError(f"{name} must have {ranks} numbers, one per rank; got {len(listed)}")
    return tuple(int(value) for value in listed)
