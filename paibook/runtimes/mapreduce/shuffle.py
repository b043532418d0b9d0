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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import index, itemgetter
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy

from paibook.errors import DataError
from paibook.runtimes.mapreduce.key_order import NAN, with_one_nan
from paibook.runtimes.mapreduce.packing import unpack
from paibook.runtimes.mapreduce.partition import partitions_of

T = TypeVar("T")
Groups = dict[Any, list[Any]]  # key -> its values, in order of arrival; keys in order of first appearance
Items = list[tuple[Any, Sequence[Any]]]  # keys with their values
Block = tuple[list[Any], list[int] | None, list[Any]]  # keys, how many values each has (None: one each), values
Form = Literal["groups", "table"]
BLOCK_VALUES = 200_000  # of a segment, which is packed, and read again, as one
BLOCK_BYTES = 8 << 20  # the same where values are large: as Python objects


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
        bucket: Its number: keys of different buckets are different.
    """

    source: str | bytes
    offset: int
    length: int
    values: int
    memory: int
    form: Form = "groups"
    input: str = ""
    bucket: int = 0

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


def of_relations(segments: Sequence[Segment], relations: Sequence[str]) -> Sequence[Segment]:
    """Those that hold rows of some relations; all where none is named."""
    return [segment for segment in segments if segment.input in relations] if relations else segments


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

    def add(self, bucket: int, content: Any, values: int, memory: int, form: Form = "groups", input: str = "") -> None:
        """Append packed content to a bucket; the rest is what ``Segment`` says of it.

        Raises:
            DataError: The disk is full.
        """
        length, offset = memoryview(content).nbytes, 0
        source: str | bytes
        if self._path is None:
            source = bytes(content)
        else:
            self._write(content)
            source, offset = str(self._path), self.bytes
        self.buckets[bucket].append(Segment(source, offset, length, values, memory, form, input, bucket))
        self.bytes += length

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


def bucket_numbers(keys: Any, buckets: int, partition: Any = None) -> Sequence[int]:
    """The bucket of each key, by its stable hash or by the cell's own ``partition``.

    Raises:
        TypeError: A key that could never meet another.
        ValueError: ``partition`` returned something else than a bucket's number; names the key.
    """
    if partition is None:
        return partitions_of(keys, buckets)
    return [_bucket(partition(key, buckets), key, buckets) for key in keys]


def _bucket(number: Any, key: Any, buckets: int) -> int:
    """What ``partition`` returned, numpy's whole numbers too, as an int."""
    try:
        whole = -1 if isinstance(number, bool) else index(number)
    except TypeError:
        whole = -1
    if 0 <= whole < buckets:
        return whole
    advice = "; write int(...) around a comparison" if isinstance(number, (bool, numpy.bool_)) else ""
    raise ValueError(
        f"partition(key, partitions) returned {number!r} for the key {key!r:.80}; "
        f"a whole number from 0 to {buckets - 1} is needed{advice}"
    )


def cut(items: Iterable[tuple[Any, list[Any]]], limit: int) -> Iterator[Block]:
    """Groups in blocks of about ``limit`` values; a key may stand in several."""
    keys: list[Any] = []
    counts: list[int] = []
    values: list[Any] = []
    for key, some in items:
        for start in range(0, len(some) or 1, limit):
            piece = some[start : start + limit] if len(some) > limit else some
            keys.append(key)
            counts.append(len(piece))
            values += piece
            if len(values) >= limit:
                yield _block(keys, counts, values)
                keys, counts, values = [], [], []
    if keys:
        yield _block(keys, counts, values)


def _block(keys: list[Any], counts: list[int], values: list[Any]) -> Block:
    return keys, None if counts == [1] * len(keys) else counts, values


def blocks(segments: Iterable[Segment]) -> Iterator[Block]:
    """The groups of segments, one segment after the other."""
    for segment in segments:
        packed_keys, packed_counts, packed_values = pickle.loads(segment.read())
        counts = None if packed_counts is None else unpack(packed_counts)
        yield unpack(packed_keys), counts, unpack(packed_values)


def add_block(groups: Groups, block: Block) -> None:
    """Add a block to ``groups``, which makes a missing key's list itself. All NaN keys are one."""
    keys, counts, values = block
    keys = with_one_nan(keys)
    if counts is None:
        for key, value in zip(keys, values, strict=True):
            groups[key].append(value)
        return
    start = 0
    for key, count in zip(keys, counts, strict=True):
        groups[key].extend(values[start : start + count])
        start += count


def merged(found: Iterable[Block]) -> Groups:
    """All groups of blocks in memory; values stand in the order of the blocks."""
    groups: Groups = defaultdict(list)
    for block in found:
        add_block(groups, block)
    return groups


def ordered(groups: dict[Any, T], descending: bool = False) -> tuple[list[tuple[Any, T]], bool]:
    """Keys with what belongs to them.

    In order, NaN last, and True; or by first appearance, and False, where keys cannot be compared.
    """
    nan = [(NAN, groups.pop(NAN))] if NAN in groups else []
    items = list(groups.items())
    try:
        items.sort(key=itemgetter(0), reverse=descending)
    except TypeError:
        items = list(groups.items())  # a sort that fails leaves its list in disorder
        return items + nan, False
    return items + nan, True


def emptying(items: list[tuple[Any, T]]) -> Iterator[tuple[Any, T]]:
    """The items, each forgotten once it was given, to hold no values longer than they are needed."""
    items.reverse()
    while items:
        yield items.pop()
