"""The shuffle: what map tasks hand on, cut into buckets by key, and put together again on the reducers' side.

A map task writes one file. In it stand, bucket after bucket, packed *segments*: keys, how many values each has, and the
values. Only handles travel: a reduce task reads its segments itself. Where workers share no folder, the segments' bytes
stay in the memory of the worker that made them, and the cluster carries them over.
"""

from __future__ import annotations

import os
import pickle
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

from paibook.errors import DataError
from paibook.runtimes.mapreduce.packing import pack, unpack
from paibook.runtimes.mapreduce.partition import partitions_of

Groups = dict[Any, list[Any]]  # key -> its values, in order of arrival; keys in order of first appearance
Block = tuple[list[Any], list[int] | None, list[Any]]  # keys, how many values each has (None: one each), values
BLOCK_VALUES = 200_000  # values of a segment: what an external sort holds of each run it merges


@dataclass(frozen=True, slots=True)
class Segment:
    """Some packed groups, or a table, of one bucket.

    Attributes:
        source: The file they lie in, or the bytes themselves.
        offset, length: Where in the file.
        values: How many values (or rows).
        memory: Bytes they take as Python objects, roughly.
        form: What was packed.
        input: Which input the rows of a table came from.
    """

    source: str | bytes
    offset: int
    length: int
    values: int
    memory: int
    form: Literal["groups", "table"] = "groups"
    input: str = ""

    def read(self) -> bytes:
        """The packed bytes.

        Raises:
            DataError: The file is gone or shorter than it was.
        """
        if isinstance(self.source, bytes):
            return self.source
        try:
            with open(self.source, "rb") as file:
                content = os.pread(file.fileno(), self.length, self.offset)
        except OSError as error:
            raise DataError(f"the shuffle file {self.source} cannot be read: {error.strerror}") from error
        if len(content) != self.length:
            raise DataError(f"the shuffle file {self.source} is cut short: somebody changed it during the run")
        return content


Buckets = list[list[Segment]]  # for each bucket its segments, in order


class ShuffleWriter:
    """Writes one map task's output.

    Args:
        folder: Where its file goes; None keeps the bytes in the segments themselves.
        buckets: How many there are.
        name: Leads the file's name, which is different for every attempt.
    """

    def __init__(self, folder: Path | None, buckets: int, name: str) -> None:
        self.buckets: Buckets = [[] for _ in range(buckets)]
        self.bytes = 0
        self._path = None if folder is None else folder / f"{name}-{uuid.uuid4().hex[:12]}.shuffle"
        self._file: Any = None

    def add(self, bucket: int, content: Any, segment: Segment) -> None:
        """Append packed content to a bucket; ``segment`` says what it is.

        Raises:
            DataError: The disk is full.
        """
        if self._path is None:
            segment = replace(segment, source=bytes(content), offset=0, length=memoryview(content).nbytes)
        else:
            self._write(content)
            size = memoryview(content).nbytes
            segment = replace(segment, source=str(self._path), offset=self.bytes, length=size)
        self.buckets[bucket].append(segment)
        self.bytes += segment.length

    def close(self) -> Buckets:
        """All segments, on disk by now."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                raise self._full(error) from error
        return self.buckets

    def abort(self) -> None:
        """Remove what was written."""
        if self._file is not None and self._path is not None:
            self._file.close()
            self._path.unlink(missing_ok=True)

    def _write(self, content: Any) -> None:
        assert self._path is not None
        try:
            if self._file is None:
                self._file = self._path.open("xb", buffering=1 << 20)
            self._file.write(content)
        except OSError as error:
            raise self._full(error) from error

    def _full(self, error: OSError) -> DataError:
        return DataError(
            f"cannot write the shuffle file {self._path}: {error.strerror}; free space there, or set PAIBOOK_RUNS to a "
            "folder on a larger disk"
        )


def add_groups(writer: ShuffleWriter, groups: Mapping[Any, list[Any]], numbers: Sequence[int], value_size: int) -> None:
    """Append groups to the buckets of their keys.

    Args:
        writer: Where they go.
        groups: Key to values.
        numbers: The bucket of each key.
        value_size: Bytes a key with its values takes in memory, for each value, roughly.

    Raises:
        Exception: Whatever pickling a key or a value raises.
        DataError: The disk is full.
    """
    for bucket, keys, lists in _shares(groups, numbers, len(writer.buckets)):
        for some_keys, some_lists in _blocks(keys, lists):
            content = _packed(some_keys, some_lists)
            count = sum(map(len, some_lists))
            writer.add(bucket, content, Segment(b"", 0, 0, count, count * value_size))


def bucket_numbers(keys: Any, buckets: int, partition: Any = None) -> Sequence[int]:
    """The bucket of each key, by its stable hash or by the cell's own ``partition``.

    Raises:
        TypeError: A key that could never meet another.
        ValueError: ``partition`` returned something else than a bucket's number; names the key.
    """
    if partition is None:
        return partitions_of(keys, buckets)
    numbers = []
    for key in keys:
        number = partition(key, buckets)
        if not isinstance(number, int) or not 0 <= number < buckets:
            raise ValueError(
                f"partition(key, partitions) returned {number!r} for the key {key!r:.80}; "
                f"a whole number from 0 to {buckets - 1} is needed"
            )
        numbers.append(number)
    return numbers


def _shares(
    groups: Mapping[Any, list[Any]], numbers: Sequence[int], buckets: int
) -> Iterator[tuple[int, list[Any], list[list[Any]]]]:
    if buckets == 1:
        if groups:
            yield 0, list(groups), list(groups.values())
        return
    keys: list[list[Any]] = [[] for _ in range(buckets)]
    lists: list[list[list[Any]]] = [[] for _ in range(buckets)]
    for number, key, values in zip(numbers, groups, groups.values(), strict=True):
        keys[number].append(key)
        lists[number].append(values)
    for bucket in range(buckets):
        if keys[bucket]:
            yield bucket, keys[bucket], lists[bucket]


def _blocks(keys: list[Any], lists: list[list[Any]]) -> Iterator[tuple[list[Any], list[list[Any]]]]:
    """Groups cut so that none holds many more than ``BLOCK_VALUES``; a key may stand in several."""
    if sum(map(len, lists)) <= BLOCK_VALUES:
        yield keys, lists
        return
    some_keys: list[Any] = []
    some_lists: list[list[Any]] = []
    room = BLOCK_VALUES
    for key, values in zip(keys, lists, strict=True):
        for start in range(0, max(1, len(values)), BLOCK_VALUES):
            piece = values[start : start + BLOCK_VALUES] if len(values) > BLOCK_VALUES else values
            some_keys.append(key)
            some_lists.append(piece)
            room -= len(piece)
            if room <= 0:
                yield some_keys, some_lists
                some_keys, some_lists, room = [], [], BLOCK_VALUES
    if some_keys:
        yield some_keys, some_lists


def _packed(keys: list[Any], lists: list[list[Any]]) -> bytes:
    counts = list(map(len, lists))
    values = list(chain.from_iterable(lists))
    single = len(values) == len(keys) and 0 not in counts
    return pickle.dumps((pack(keys), None if single else pack(counts), pack(values)), protocol=5)


def blocks(segments: Iterable[Segment]) -> Iterator[Block]:
    """The groups of segments, one segment after the other."""
    for segment in segments:
        packed_keys, packed_counts, packed_values = pickle.loads(segment.read())
        counts = None if packed_counts is None else unpack(packed_counts)
        yield unpack(packed_keys), counts, unpack(packed_values)


def merged(found: Iterable[Block]) -> Groups:
    """All groups of blocks in memory; values stand in the order of the blocks."""
    groups: defaultdict[Any, list[Any]] = defaultdict(list)
    for keys, counts, values in found:
        if counts is None:
            for key, value in zip(keys, values, strict=True):
                groups[key].append(value)
            continue
        start = 0
        for key, count in zip(keys, counts, strict=True):
            groups[key].extend(values[start : start + count])
            start += count
    return with_one_nan(groups)


def with_one_nan(groups: Groups) -> Groups:
    """Groups with all NaN keys as one: a NaN equals nothing, so every copy of it would be a key of its own."""
    if float not in set(map(type, groups)):
        return groups
    strange = [key for key in groups if key != key]
    if len(strange) < 2:
        return groups
    first, *others = strange
    for key in others:
        groups[first].extend(groups.pop(key))
    return groups


def ordered(groups: Groups, descending: bool = False) -> tuple[list[tuple[Any, list[Any]]], bool]:
    """Keys with their values: in order and True, or by first appearance and False where keys cannot be compared."""
    items = list(groups.items())
    try:
        items.sort(key=itemgetter(0), reverse=descending)
    except TypeError:
        return list(groups.items()), False  # a sort that fails leaves its list in disorder
    return items, True
