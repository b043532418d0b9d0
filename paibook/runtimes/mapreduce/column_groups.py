"""Column groups: the values of a partition in the order of their keys, made into Python objects key by key.

Tuples and lists of all values at once would take several times the memory, and time to fetch it: each is made just
before its key is reduced.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from heapq import nlargest
from typing import Any

import numpy

from paibook.runtimes.mapreduce.codes import Codes
from paibook.runtimes.mapreduce.key_order import with_one_nan
from paibook.runtimes.mapreduce.largest_keys import KEPT
from paibook.runtimes.mapreduce.memory import size_of
from paibook.runtimes.mapreduce.packing import unpack, unpack_arrays
from paibook.runtimes.mapreduce.pair_columns import AT_ONCE, by_key, stable_order
from paibook.runtimes.mapreduce.report import KeySize
from paibook.runtimes.mapreduce.shuffle import Segment, ordered

Array = numpy.ndarray[Any, Any]


class ColumnGroups:
    """All groups of a partition; an iterator of keys with their values, in the order of ``ordered``.

    Args:
        segments: The partition's, packed as groups; at least one.
        descending: Greatest key first.

    Attributes:
        comparable: Whether the keys came in their order.
    """

    def __init__(self, segments: Sequence[Segment], descending: bool = False) -> None:
        codes = Codes()
        rows: list[Array] = []
        columns: list[tuple[bool, list[Array]]] = []
        for segment in segments:
            packed_keys, packed_counts, packed_values = pickle.loads(segment.read())
            keys = with_one_nan(unpack(packed_keys))
            found = codes.of(keys)
            rows.append(found if packed_counts is None else numpy.repeat(found, unpack(packed_counts)))
            columns.append(unpack_arrays(packed_values))
        self._are_tuples, self._columns = _below_each_other(columns)
        items, self.comparable = ordered(codes, descending)
        self._keys = [key for key, _ in items]
        places = numpy.empty(len(items), numpy.int32)
        places[numpy.fromiter((code for _, code in items), numpy.int32, len(items))] = numpy.arange(len(items))
        placed = places[numpy.concatenate(rows)]
        self._order = stable_order(placed)
        self._ends = numpy.cumsum(numpy.bincount(placed, minlength=len(items)))

    def __iter__(self) -> Iterator[tuple[Any, list[Any]]]:
        return by_key(self._keys, self._ends, self._values)

    def largest(self) -> list[KeySize]:
        """The keys with the most values."""
        sizes = numpy.diff(self._ends, prepend=0)
        return [self._size(i, int(sizes[i])) for i in nlargest(KEPT, range(len(sizes)), key=sizes.__getitem__)]

    def _size(self, number: int, count: int) -> KeySize:
        start = int(self._ends[number]) - count
        some = self._values(start, start + min(count, AT_ONCE))
        return KeySize(f"{self._keys[number]!r:.80}", count, size_of(some) * count // len(some))

    def _values(self, start: int, stop: int) -> list[Any]:
        rows = self._order[start:stop]
        parts = [column[rows].tolist() for column in self._columns]
        return list(zip(*parts, strict=True)) if self._are_tuples else parts[0]


def _below_each_other(found: Sequence[tuple[bool, list[Array]]]) -> tuple[bool, list[Array]]:
    """Columns of several segments as one; as objects where they are of different kinds."""
    if len({(are_tuples, len(arrays)) for are_tuples, arrays in found}) > 1:
        return False, [_joined([_objects(are_tuples, arrays) for are_tuples, arrays in found])]
    places = zip(*(arrays for _, arrays in found), strict=True)
    return found[0][0], [_joined(list(arrays)) for arrays in places]


def _joined(arrays: list[Array]) -> Array:
    if len({array.dtype.kind for array in arrays}) > 1:  # 1 and 1.0 stay what they are
        arrays = [_objects(False, [array]) for array in arrays]
    return arrays[0] if len(arrays) == 1 else numpy.concatenate(arrays)


def _objects(are_tuples: bool, arrays: list[Array]) -> Array:
    lists = [array.tolist() for array in arrays]
    values: list[Any] = list(zip(*lists, strict=True)) if are_tuples else lists[0]
    return numpy.fromiter(values, object, len(values))
