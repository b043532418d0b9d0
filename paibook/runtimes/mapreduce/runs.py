"""Runs: groups on disk in the order of their keys, in blocks small enough that many runs can be read side by side."""

from __future__ import annotations

import pickle
import uuid
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from paibook.errors import DataError
from paibook.runtimes.mapreduce.key_order import with_one_nan
from paibook.runtimes.mapreduce.packing import pack, unpack
from paibook.runtimes.mapreduce.partition import hashes_of
from paibook.runtimes.mapreduce.shuffle import cut

Item = tuple[Any, list[Any]]  # a key and some of its values


@dataclass(slots=True)
class Spills:
    """What went to disk: sorted runs (with the values of keys too large for memory), and their bytes."""

    runs: int = 0
    bytes: int = 0


class BlockFile:
    """A file of packed lists, appended to or read from the start.

    Args:
        folder: Where it is made, under a name of its own.
        spills: Counts its bytes.
    """

    def __init__(self, folder: Path, spills: Spills) -> None:
        self.path = folder / f"{uuid.uuid4().hex}.spill"
        self._spills = spills
        self._file: BinaryIO | None = None

    def append(self, *lists: list[Any] | None) -> None:
        """Write lists as one block.

        Raises:
            DataError: The disk is full.
        """
        content = [None if some is None else pack(some) for some in lists]
        try:
            if self._file is None:
                self._file = self.path.open("ab")
            before = self._file.tell()
            pickle.dump(content, self._file, protocol=5)
            self._spills.bytes += self._file.tell() - before
        except OSError as error:
            raise self._full(error) from error

    def close(self) -> None:
        """Let go of the file; it can be read, and appended to again.

        Raises:
            DataError: The disk is full.
        """
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            file.close()
        except OSError as error:
            raise self._full(error) from error

    def blocks(self, start: int = 0) -> Iterator[list[Any]]:
        """What each ``append`` was given, from the block at a place in the file on."""
        self.close()
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(start)
            while True:
                try:
                    content = pickle.load(file)
                except EOFError:
                    return
                yield [None if packed is None else unpack(packed) for packed in content]

    def tell(self) -> int:
        """Where the next block will begin."""
        if self._file is not None:
            return self._file.tell()
        return self.path.stat().st_size if self.path.exists() else 0

    def remove(self) -> None:
        """Delete it."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self.path.unlink(missing_ok=True)

    def _full(self, error: OSError) -> DataError:
        return DataError(
            f"cannot write {self.path}, where data goes that does not fit in memory: {error.strerror}; free space "
            "there, set PAIBOOK_RUNS to a folder on a larger disk, or give workers more --memory"
        )


@dataclass(frozen=True, slots=True)
class Run:
    """Groups sorted by key or by their keys' hashes; a key may stand several times in a row.

    Attributes:
        file: Blocks of keys, how many values each has (None: one each), and the values.
        values: How many, in all.
        memory: Bytes they take as Python objects with their keys, roughly.
        kind: What its keys can be compared as; None where they cannot.
        by_hash: Whether it is sorted by hash.
    """

    file: BlockFile
    values: int
    memory: int
    kind: Any
    by_hash: bool


def write_run(file: BlockFile, items: Iterable[Item], block_values: int) -> int:
    """Write groups in blocks of about ``block_values`` values; returns how many values there were.

    Raises:
        DataError: The disk is full.
        Exception: Whatever pickling a key or a value raises.
    """
    total = 0
    for keys, counts, values in cut(items, block_values):
        file.append(keys, counts, values)
        total += len(values)
    file.close()
    return total


class RunReader:
    """Reads a run, one block in memory at a time.

    Args:
        run: The run.
        descending: Whether it is sorted with the greatest key first.

    Attributes:
        ended: Whether all was taken.
    """

    def __init__(self, run: Run, descending: bool) -> None:
        self._run, self._descending = run, descending
        self._blocks = run.file.blocks()
        self._orders: list[Any] = []
        self._keys: list[Any] = []
        self._ends: list[int] = []
        self._values: list[Any] = []
        self._place = 0
        self.ended = False
        self._load()

    @property
    def last(self) -> Any:
        """What the last item in memory is sorted by."""
        return self._orders[-1]

    def before(self, limit: Any) -> list[Item]:
        """Take the items that come before a key (or hash), which is not after ``last``."""
        low, high = self._place, len(self._orders)
        if not self._descending:
            low = bisect_left(self._orders, limit, low)
        else:
            while low < high:
                middle = (low + high) // 2
                low, high = (middle + 1, high) if self._orders[middle] > limit else (low, middle)
        return self._items(low)

    def equal(self, limit: Any) -> Iterator[Item]:
        """Take the items at a key (or hash), which must come next if they come at all; reads on as needed."""
        while not self.ended:
            place = self._place
            while place < len(self._orders) and self._orders[place] == limit:
                place += 1
            yield from self._items(place)
            if place < len(self._orders):
                return
            self._load()

    def close(self) -> None:
        """Let go of the file."""
        self._blocks.close()  # type: ignore[attr-defined]

    def _items(self, end: int) -> list[Item]:
        start = self._place
        self._place = end
        ends, values = self._ends, self._values
        if not ends:
            return [(key, [value]) for key, value in zip(self._keys[start:end], values[start:end], strict=True)]
        starts = [ends[start - 1] if start else 0, *ends[start:end]]
        return [
            (key, values[low:high])
            for key, low, high in zip(self._keys[start:end], starts, ends[start:end], strict=False)
        ]

    def _load(self) -> None:
        block = next(self._blocks, None)
        self._place = 0
        if block is None:
            self.ended = True
            self._orders, self._keys, self._ends, self._values = [], [], [], []
            return
        keys, counts, self._values = block
        self._keys = with_one_nan(keys)
        self._orders = hashes_of(self._keys).tolist() if self._run.by_hash else self._keys
        self._ends = [] if counts is None else list(_running(counts))


def _running(counts: list[int]) -> Iterator[int]:
    total = 0
    for count in counts:
        total += count
        yield total
