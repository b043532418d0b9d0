"""Pairs as columns: what map yields for a shuffle, grouped only when it is combined or cut into buckets.

Appending each value to the list of its key touches memory all over the place. Here a batch of pairs, still in the
processor's cache, becomes a number for each key and columns of values; when all are there, one sort by those numbers
groups them.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import numpy

from paibook.runtimes.mapreduce.codes import Codes
from paibook.runtimes.mapreduce.memory import size_of_items
from paibook.runtimes.mapreduce.mistakes import check_pair
from paibook.runtimes.mapreduce.packing import pack
from paibook.runtimes.mapreduce.shuffle import BLOCK_BYTES, BLOCK_VALUES, ShuffleWriter
from paibook.runtimes.mapreduce.value_columns import (
    AnyColumn,
    Kind,
    add_parts,
    new_columns,
    parts_of,
)

AT_ONCE = 8192  # pairs handled together: what stays in a core's cache
AGAIN = 1 << 15  # pairs held as objects after which columns are tried again
_ENTRY = 100  # bytes of a dict's entry and of the number in it
_key, _value = itemgetter(0), itemgetter(1)


class PairColumns:
    """Collects pairs, then writes them bucket by bucket.

    Attributes:
        rows: Pairs held.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._codes = Codes()
        self._chunks: list[Any] = []
        self._kind: Kind = None
        self._columns: list[AnyColumn] = []
        self._until = 0  # rows up to which objects stay objects, whatever comes

    def add(self, pairs: Sequence[Any]) -> bool:
        """Append pairs; False, with nothing changed, where their values do not fit the columns there are.

        Raises:
            TypeError, ValueError: One is not a pair, or its key cannot be hashed; of no use after that.
        """
        keys, values = halves(pairs)
        is_known = self.has_objects and self.rows < self._until
        kind, parts = (None, [values]) if is_known else parts_of(values)
        if not self._columns:
            self._kind, self._columns = kind, new_columns(kind)
        elif kind != self._kind:
            return False
        if not add_parts(self._columns, parts):
            return False
        self._chunks.append(self._codes.of(keys))
        self.rows += len(keys)
        if not is_known:
            self._until = 2 * self.rows
        return True

    @property
    def keys(self) -> int:
        """How many different keys there are."""
        return len(self._codes)

    def heaviest(self) -> int:
        """How many values the key with the most values has."""
        return int(numpy.bincount(numpy.concatenate(self._chunks)).max()) if self.rows else 0

    @property
    def has_objects(self) -> bool:
        """Whether values are kept as objects."""
        return bool(self._columns) and self._kind is None

    def use_objects(self, rows: int = AGAIN) -> None:
        """Keep values as objects until so many are held; to be called while nothing is."""
        self._kind, self._columns, self._until = None, new_columns(None), rows

    @property
    def nbytes(self) -> int:
        """Bytes held, roughly."""
        keys = size_of_items(list(self._codes)) + _ENTRY * len(self._codes) if self._codes else 0
        return keys + 4 * self.rows + sum(column.nbytes for column in self._columns)

    def groups(self) -> Iterator[tuple[Any, list[Any]]]:
        """Each key with its values in order of arrival; forgets them. Values become Python objects as they are asked
        for."""
        if not self.rows:
            return
        codes = numpy.concatenate(self._chunks)
        order, keys, kind = stable_order(codes), list(self._codes), self._kind
        ends = numpy.cumsum(numpy.bincount(codes, minlength=len(keys)))
        columns = [column.ordered(order) for column in self._columns]
        self._forget()
        yield from by_key(keys, ends, lambda start, stop: _values(columns, kind, start, stop))

    def write(self, writer: ShuffleWriter, numbers: Callable[[Any], Iterable[int]]) -> None:
        """Hand all pairs to a writer and forget them.

        Args:
            writer: Of the task.
            numbers: Gives the bucket of each of some keys.

        Raises:
            Exception: Whatever pickling a key or a value raises, or ``numbers``.
            DataError: The disk is full.
        """
        if not self.rows:
            return
        keys = numpy.fromiter(self._codes, object, len(self._codes))
        buckets = numpy.fromiter(numbers(list(self._codes)), numpy.int64, len(keys))
        by_bucket = numpy.argsort(buckets, kind="stable")
        places = numpy.empty(len(keys), numpy.int32)  # of each key, once keys stand by bucket
        places[by_bucket] = numpy.arange(len(keys), dtype=numpy.int32)
        rows = places[numpy.concatenate(self._chunks)]
        value_bytes = self._value_bytes()
        starts = numpy.concatenate([[0], numpy.cumsum(numpy.bincount(rows, minlength=len(keys)))])
        order = stable_order(rows)
        columns = [column.ordered(order) for column in self._columns]
        ends = numpy.cumsum(numpy.bincount(buckets, minlength=len(writer.buckets)))
        kind, limit = self._kind, min(BLOCK_VALUES, max(1, BLOCK_BYTES // value_bytes))
        self._forget()
        keys = keys[by_bucket]
        first = 0
        for bucket, last in enumerate(ends.tolist()):
            for some, counts, start in _blocks(starts, first, last, limit):
                stop = start + sum(counts)
                content = _packed(keys[some].tolist(), counts, _packed_values(columns, kind, start, stop))
                writer.add(bucket, content, stop - start, (stop - start) * value_bytes)
            first = last

    def _value_bytes(self) -> int:
        """Bytes of a value with its share of its key, as Python objects, roughly."""
        keys = size_of_items(list(self._codes)) + 2 * _ENTRY * len(self._codes)
        tuples = (40 + 8 * len(self._columns)) * self.rows if isinstance(self._kind, tuple) else 0
        values = sum(column.object_bytes() for column in self._columns)
        return max(1, (keys + tuples + values + 8 * self.rows) // self.rows)

    def _forget(self) -> None:
        self.rows = self._until = 0
        self._codes, self._chunks, self._columns = Codes(), [], []


def by_key(
    keys: Sequence[Any], ends: numpy.ndarray[Any, Any], values: Callable[[int, int], list[Any]]
) -> Iterator[tuple[Any, list[Any]]]:
    """Keys with their values, of which not many more than ``AT_ONCE`` are made at a time.

    Args:
        keys: In the order of their values.
        ends: For each key the place behind its last value.
        values: Gives the values from one place to another.
    """
    first = start = 0
    while first < len(keys):
        last = max(first + 1, int(numpy.searchsorted(ends, start + AT_ONCE, "right")))
        some = ends[first:last].tolist()
        made, base = values(start, some[-1]), start
        for key, end in zip(keys[first:last], some, strict=True):
            yield key, made[start - base : end - base]
            start = end
        first = last


def _values(columns: Sequence[Any], kind: Kind, start: int, stop: int) -> list[Any]:
    parts = [column.values(start, stop) for column in columns]
    return list(zip(*parts, strict=True)) if isinstance(kind, tuple) else parts[0]


def halves(pairs: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """The keys of pairs, and their values.

    Raises:
        TypeError, ValueError: One is not a pair.
    """
    if set(map(type, pairs)) == {tuple} and set(map(len, pairs)) == {2}:
        return list(map(_key, pairs)), list(map(_value, pairs))
    keys, values = [], []
    for pair in pairs:
        check_pair(pair)
        key, value = pair
        keys.append(key)
        values.append(value)
    return keys, values


def stable_order(places: numpy.ndarray[Any, Any]) -> numpy.ndarray[Any, Any]:
    """Rows by their places. numpy sorts by radix up to 16 bits, so one half after the other."""
    order = numpy.argsort((places & 0xFFFF).astype(numpy.uint16), kind="stable")
    if places.max() < 1 << 16:
        return order
    high = (places >> 16).astype(numpy.uint16)
    return order[numpy.argsort(high[order], kind="stable")]


def _blocks(
    starts: numpy.ndarray[Any, Any], first: int, last: int, limit: int
) -> Iterator[tuple[slice, list[int], int]]:
    """Keys ``first`` to ``last`` in runs of ``limit`` values at most; a key with more stands in several.

    Yields:
        Which keys, how many of its values each has there, and the place of the first value.
    """
    while first < last:
        start = int(starts[first])
        end = min(last, max(first + 1, int(numpy.searchsorted(starts, start + limit, "right")) - 1))
        if end > first + 1:
            yield slice(first, end), numpy.diff(starts[first : end + 1]).tolist(), start
        else:
            stop = int(starts[end])
            for low in range(start, stop, limit):
                yield slice(first, end), [min(limit, stop - low)], low
        first = end


def _packed(keys: list[Any], counts: list[int], values: tuple[Any, ...]) -> bytes:
    packed_counts = None if counts == [1] * len(counts) else pack(counts)
    return pickle.dumps([pack(keys), packed_counts, pickle.dumps(values, protocol=5)], protocol=5)


def _packed_values(columns: Sequence[Any], kind: Kind, start: int, stop: int) -> tuple[Any, ...]:
    parts: list[tuple[Any, ...]] = [column.packed(start, stop) for column in columns]
    return ("tuples", parts) if isinstance(kind, tuple) else parts[0]
