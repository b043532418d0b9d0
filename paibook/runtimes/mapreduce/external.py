"""External grouping: a partition that does not fit in memory is cut into sorted runs on disk, which are merged.

Knuth, The Art of Computer Programming, vol. 3, section 5.4; Graefe, Implementing Sorting in Database Systems, 2006.
"""

from __future__ import annotations

import heapq
import pickle
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from paibook.errors import DataError
from paibook.runtimes.mapreduce.memory import size_of, size_of_groups
from paibook.runtimes.mapreduce.partition import stable_hash
from paibook.runtimes.mapreduce.shuffle import Block, Groups, with_one_nan

FAN_IN = 32  # runs merged at once: each holds one block in memory
Item = tuple[Any, list[Any]]
Combine = Callable[[Any, list[Any]], list[Any]]


@dataclass(slots=True)
class Spills:
    """What went to disk: runs, and their bytes."""

    runs: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Run:
    """A sorted run. ``kinds`` are those of its keys; ``by_hash`` tells by what it is sorted."""

    path: Path
    kinds: frozenset[Any]
    by_hash: bool


def grouped(
    blocks: Iterable[Block],
    budget: int,
    folder: Path,
    combine: Combine | None = None,
    descending: bool = False,
    spills: Spills | None = None,
) -> tuple[Iterator[tuple[Any, Sequence[Any]]], bool]:
    """Group blocks by key, holding about ``budget`` bytes.

    Args:
        blocks: Keys, how many values each has (None: one each), and the values, in order of arrival.
        budget: Bytes of Python objects, roughly.
        folder: Where runs go; they are removed as soon as they are merged.
        combine: Gives the values of a key in fewer values.
        descending: Whether the greatest key comes first.
        spills: Counts what is written.

    Returns:
        Keys with their values, which stand in order of arrival, and whether the keys come in their order (else they
        could not be compared). Values that exceed the budget come as a sequence that reads them from disk.

    Raises:
        DataError: The disk is full.
    """
    sorter = _Sorter(budget, folder, combine, descending, spills or Spills())
    for keys, counts, values in blocks:
        sorter.add(keys, counts, values)
    return sorter.items()


class _Sorter:
    def __init__(self, budget: int, folder: Path, combine: Combine | None, descending: bool, spills: Spills) -> None:
        self._budget, self._folder, self._combine = budget, folder, combine
        self._descending, self._spills = descending, spills
        self._groups: Groups = defaultdict(list)
        self._runs: list[_Run] = []

    def add(self, keys: list[Any], counts: list[int] | None, values: list[Any]) -> None:
        start = 0
        groups = self._groups
        if counts is None:
            for key, value in zip(keys, values, strict=True):
                groups[key].append(value)
        else:
            for key, count in zip(keys, counts, strict=True):
                groups[key].extend(values[start : start + count])
                start += count
        if size_of_groups(groups) < self._budget:
            return
        if self._combine is not None:
            self._groups = defaultdict(list, {k: self._combine(k, v) for k, v in groups.items()})
        if size_of_groups(self._groups) >= self._budget // 2:
            self._spill()

    def items(self) -> tuple[Iterator[tuple[Any, Sequence[Any]]], bool]:
        if not self._runs:
            items = list(with_one_nan(self._groups).items())
            try:
                items.sort(key=itemgetter(0), reverse=self._descending)
            except TypeError:
                return iter(list(self._groups.items())), False
            return iter(items), True
        self._spill()
        by_hash = len(frozenset().union(*(run.kinds for run in self._runs))) > 1 or any(r.by_hash for r in self._runs)
        if by_hash:
            self._runs = [run if run.by_hash else self._resorted(run) for run in self._runs]
        while len(self._runs) > FAN_IN:
            some, self._runs = self._runs[:FAN_IN], self._runs[FAN_IN:]
            # The merged run holds the earliest values: it comes first.
            self._runs.insert(0, self._written(self._pieces(some, by_hash), some[0].kinds, by_hash))
        return self._joined(self._runs, by_hash), not by_hash

    def _spill(self) -> None:
        groups, self._groups = with_one_nan(self._groups), defaultdict(list)
        if not groups:
            return
        kinds = frozenset(map(_kind, groups))
        by_hash = len(kinds) > 1 or None in kinds
        self._runs.append(self._written(iter(self._sorted(list(groups.items()), by_hash)), kinds, by_hash))

    def _sorted(self, items: list[Item], by_hash: bool) -> list[Item]:
        if by_hash:
            items.sort(key=lambda item: stable_hash(item[0]))
        else:
            items.sort(key=itemgetter(0), reverse=self._descending)
        return items

    def _resorted(self, run: _Run) -> _Run:
        items = self._sorted([item for block in _blocks(run.path) for item in block], True)
        return self._written(iter(items), run.kinds, True)

    def _written(self, items: Iterator[Item], kinds: frozenset[Any], by_hash: bool) -> _Run:
        path = self._folder / f"run-{uuid.uuid4().hex}.spill"
        room = max(4096, self._budget // (4 * FAN_IN))
        try:
            with path.open("xb") as file:
                for block in _cut(items, room):
                    pickle.dump(block, file, protocol=5)
                self._spills.bytes += file.tell()
        except OSError as error:
            path.unlink(missing_ok=True)
            raise DataError(f"cannot write the sorted run {path}: {error.strerror}; free space there") from error
        self._spills.runs += 1
        return _Run(path, kinds, by_hash)

    def _pieces(self, runs: Sequence[_Run], by_hash: bool) -> Iterator[Item]:
        """Items of several runs in order; a key may come several times in a row. The runs' files go."""
        order: Callable[[Item], Any] = (lambda item: stable_hash(item[0])) if by_hash else itemgetter(0)
        try:
            readers = [(item for block in _blocks(run.path) for item in block) for run in runs]
            yield from heapq.merge(*readers, key=order, reverse=self._descending and not by_hash)
        finally:
            for run in runs:
                run.path.unlink(missing_ok=True)

    def _joined(self, runs: Sequence[_Run], by_hash: bool) -> Iterator[tuple[Any, Sequence[Any]]]:
        pieces = self._pieces(runs, by_hash)
        if by_hash:
            for _, same in groupby(pieces, key=lambda item: stable_hash(item[0])):
                groups: Groups = defaultdict(list)
                for key, values in same:
                    groups[key].extend(values)
                yield from with_one_nan(groups).items()
            return
        for key, same in groupby(pieces, key=itemgetter(0)):
            with ExitStack() as stack:
                yield key, self._values(same, stack)

    def _values(self, pieces: Iterator[Item], stack: ExitStack) -> Sequence[Any]:
        values: list[Any] = []
        held = 0
        spilled: SpilledValues | None = None
        for _, piece in pieces:
            values += piece
            held += size_of(piece)
            if held > self._budget:
                if spilled is None:
                    spilled = SpilledValues(self._folder / f"values-{uuid.uuid4().hex}.spill")
                    stack.callback(spilled.close)
                spilled.append(values)
                self._spills.bytes += held
                values, held = [], 0
        if spilled is None:
            return values
        spilled.append(values)
        return spilled


class SpilledValues(Sequence[Any]):
    """Values of one key that are more than memory holds: read from disk each time they are gone through."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._length = 0

    def append(self, values: list[Any]) -> None:
        """Add some at the end."""
        with self._path.open("ab") as file:
            pickle.dump(values, file, protocol=5)
        self._length += len(values)

    def close(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        for block in _blocks(self._path):
            yield from block

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return list(self)[index]
        number = index + self._length if index < 0 else index
        if not 0 <= number < self._length:
            raise IndexError(index)
        return next(value for i, value in enumerate(self) if i == number)


def _blocks(path: Path) -> Iterator[list[Any]]:
    with path.open("rb") as file:
        while True:
            try:
                block = pickle.load(file)
            except EOFError:
                return
            yield block


def _cut(items: Iterator[Item], room: int) -> Iterator[list[Item]]:
    """Items in blocks of about ``room`` bytes; the values of a large key are cut too."""
    block: list[Item] = []
    held = 0
    for key, values in items:
        size = size_of(key) + size_of(values)
        step = len(values) if size <= room else max(1, len(values) * room // size)
        for start in range(0, len(values), max(1, step)):
            piece = values[start : start + step]
            block.append((key, piece))
            held += size * len(piece) // len(values)
            if held >= room:
                yield block
                block, held = [], 0
    if block:
        yield block


def _kind(key: Any) -> Any:
    """What a key can be compared with; None where that is not known for certain."""
    if isinstance(key, str):
        return str
    if isinstance(key, (int, float)):
        return float if key == key else None
    if isinstance(key, bytes):
        return bytes
    if type(key) is tuple:
        kinds = tuple(map(_kind, key))
        return None if None in kinds else kinds
    return None
