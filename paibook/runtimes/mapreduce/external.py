"""External grouping: a partition that does not fit in memory is cut into sorted runs on disk, which are merged.

Knuth, The Art of Computer Programming, vol. 3, section 5.4; Graefe, Implementing Sorting in Database Systems, 2006.
Keys that cannot be compared with each other are sorted by their hashes instead: equal keys meet all the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy

from paibook.runtimes.mapreduce.key_order import NAN, common_kind, kind_of
from paibook.runtimes.mapreduce.memory import size_of_groups, size_of_items, size_of_lists
from paibook.runtimes.mapreduce.partition import hashes_of
from paibook.runtimes.mapreduce.runs import BlockFile, Item, Run, RunReader, Spills, write_run
from paibook.runtimes.mapreduce.shuffle import Block, Groups, add_block, emptying, ordered
from paibook.runtimes.mapreduce.spilled_values import SpilledValues, in_order

__all__ = ["SpilledValues", "Spills", "grouped", "in_order"]

FAN_IN = 32  # runs merged at once: each has one block in memory
_DICT_ENTRY = 100  # bytes of a dict for each key, with its spare places
_SHARE = 4  # the part of the budget that the blocks of merged runs take together

Combine = Callable[[Any, list[Any]], list[Any]]
Found = Iterator[tuple[Any, Sequence[Any]]]


def grouped(
    blocks: Iterable[Block],
    budget: int,
    folder: Path,
    combine: Combine | None = None,
    descending: bool = False,
    spills: Spills | None = None,
) -> tuple[Found, bool]:
    """Group blocks by key, holding about ``budget`` bytes and the block just read.

    Args:
        blocks: Keys, how many values each has (None: one each), and the values, in order of arrival.
        budget: Bytes of Python objects, roughly.
        folder: Where runs go, if any are needed; they are removed when the result ends, is closed or forgotten.
        combine: Gives the values of a key in fewer values.
        descending: Whether the greatest key comes first.
        spills: Counts what is written.

    Returns:
        Keys with their values, which stand in order of arrival, and whether the keys come in their order (NaN last).
        Else they could not be compared, and come in order of appearance or of their hashes. Values that exceed the
        budget come as ``SpilledValues``, which live until the next key is asked for.

    Raises:
        DataError: The disk is full, or a block's file is gone.
        Exception: Whatever ``combine``, hashing or pickling a key or a value raises.
    """
    sorter = _Sorter(budget, folder, combine, descending, spills if spills is not None else Spills())
    try:
        for keys, counts, values in blocks:
            sorter.add(keys, counts, values)
        return sorter.found()
    except BaseException:
        sorter.close()
        raise


class _Sorter:
    def __init__(self, budget: int, folder: Path, combine: Combine | None, descending: bool, spills: Spills) -> None:
        self._budget, self._folder, self._combine = budget, folder, combine
        self._descending, self._spills = descending, spills
        self._groups: Groups = defaultdict(list)
        self._held = 0  # bytes, by estimate
        self._home: TemporaryDirectory[str] | None = None
        self._runs: list[Run] = []
        self._nan: SpilledValues | None = None  # apart, since it has no place in any order

    def add(self, keys: list[Any], counts: list[int] | None, values: list[Any]) -> None:
        groups = self._groups
        before = len(groups)
        add_block(groups, (keys, counts, values))
        new = len(groups) - before
        self._held += size_of_items(values) + size_of_lists(new, len(values)) + new * _DICT_ENTRY
        if new:
            self._held += size_of_items(keys) * new // len(keys)
        if self._held >= self._budget:
            self._shrink()

    def found(self) -> tuple[Found, bool]:
        if not self._runs and self._nan is None:
            items, comparable = ordered(self._groups, self._descending)
            self._groups = defaultdict(list)
            return emptying(items), comparable
        self._spill()
        kind = common_kind([run.kind for run in self._runs]) if self._runs else "real"  # nothing but NaN
        if kind is None:
            self._runs = [run if run.by_hash else self._resorted(run) for run in self._runs]
        while len(self._runs) > FAN_IN:
            self._merge_some(kind)
        return self._joined(self._opened(self._runs), kind is None), kind is not None

    def close(self) -> None:
        self._groups = defaultdict(list)
        if self._home is not None:
            self._home.cleanup()

    def _shrink(self) -> None:
        if self._combine is not None:
            groups = self._groups
            for key in list(groups):
                values = self._combine(key, groups[key])
                if values:
                    groups[key] = values
                else:
                    del groups[key]
            self._held = size_of_groups(groups)
            if self._held < self._budget // 2:
                return
        self._spill()

    def _spill(self) -> None:
        groups, self._groups = self._groups, defaultdict(list)
        held, self._held = self._held, 0
        if NAN in groups:
            if self._nan is None:
                self._nan = self._values()
            self._nan.extend(groups.pop(NAN))
        if not groups:
            return
        keys = list(groups)
        kind = kind_of(keys)
        keys = _by_hash(keys) if kind is None else sorted(keys, reverse=self._descending)
        count = sum(map(len, groups.values()))
        # Taken out one by one, so that memory is free again while the run is written.
        items = ((key, groups.pop(key)) for key in keys)
        self._runs.append(self._written(items, held, count, kind, kind is None))

    def _written(self, items: Iterable[Item], memory: int, values: int, kind: Any, by_hash: bool) -> Run:
        file = BlockFile(self._place(), self._spills)
        room = self._budget // (_SHARE * FAN_IN)
        total = write_run(file, items, max(1, room * values // max(1, memory)))
        self._spills.runs += 1
        return Run(file, total, memory, kind, by_hash)

    def _resorted(self, run: Run) -> Run:
        """A run by hash: as it was cut to fit in memory, so it fits again."""
        groups: Groups = defaultdict(list)
        for keys, counts, values in run.file.blocks():
            add_block(groups, (keys, counts, values))
        run.file.remove()
        items = ((key, groups.pop(key)) for key in _by_hash(list(groups)))
        return self._written(items, run.memory, run.values, None, True)

    def _merge_some(self, kind: Any) -> None:
        """Merge the smallest neighbours, and no more of them than needed (Knuth, 5.4.9).

        Neighbours, for then the merged run can stand in their place and values stay in order.
        """
        width = min(FAN_IN, len(self._runs) - FAN_IN + 1)
        totals = [sum(run.memory for run in self._runs[i : i + width]) for i in range(len(self._runs) - width + 1)]
        first = totals.index(min(totals))
        some = self._runs[first : first + width]
        by_hash = kind is None
        items = self._pieces(self._opened(some), by_hash)
        merged = self._written(items, sum(r.memory for r in some), sum(r.values for r in some), kind, by_hash)
        self._runs[first : first + width] = [merged]

    def _opened(self, runs: Sequence[Run]) -> _Merge:
        return _Merge(runs, self._descending and not any(run.by_hash for run in runs))

    def _pieces(self, merge: _Merge, by_hash: bool) -> Iterator[Item]:
        for items, pieces in merge.rounds():
            for key, values in _by_key(items, by_hash, self._descending):
                some = self._combine(key, values) if self._combine is not None and len(values) > 1 else values
                if some:
                    yield key, some
            yield from pieces

    def _joined(self, merge: _Merge, by_hash: bool) -> Found:
        try:
            for items, pieces in merge.rounds():
                yield from _by_key(items, by_hash, self._descending)
                if by_hash:
                    yield from self._of_one_hash(pieces)
                else:
                    yield from self._of_one_key(pieces)
            if self._nan is not None:
                yield NAN, self._nan
        finally:
            merge.close()
            self.close()

    def _of_one_key(self, pieces: Iterator[Item]) -> Found:
        key: Any = None
        values: list[Any] = []
        held = 0
        spilled: SpilledValues | None = None
        first = True
        for piece_key, piece in pieces:
            if first:
                key, first = piece_key, False
            values += piece
            held += size_of_items(piece) + 8 * len(piece)
            if held >= self._budget // 2 and self._combine is not None:
                values = self._combine(key, values)
                held = size_of_items(values) + 8 * len(values)
            if held >= self._budget // 2:
                if spilled is None:
                    spilled = self._values()
                spilled.extend(values)
                values, held = [], 0
        if spilled is not None:
            spilled.extend(values)
            yield key, spilled
            spilled.close()
        elif values or not first:
            yield key, values

    def _of_one_hash(self, pieces: Iterator[Item]) -> Found:
        """Different keys may share a hash (all those of a class whose equality is its own do): then they are numbered,
        and grouped by number. The different keys themselves must fit in memory."""
        numbers: dict[Any, int] = {}
        combine = self._combine
        join = None if combine is None else lambda number, values: combine(keys[number], values)
        sorter = _Sorter(self._budget // 2, self._place(), join, False, self._spills)
        keys: list[Any] = []
        try:
            for key, values in pieces:
                number = numbers.setdefault(key, len(numbers))
                if number == len(keys):
                    keys.append(key)
                sorter.add([number], [len(values)], values)
            for number, all_values in sorter.found()[0]:
                yield keys[number], all_values
        finally:
            sorter.close()

    def _values(self) -> SpilledValues:
        self._spills.runs += 1
        return SpilledValues(self._place(), self._budget, self._spills)

    def _place(self) -> Path:
        if self._home is None:
            self._home = TemporaryDirectory(prefix="runs-", dir=self._folder, ignore_cleanup_errors=True)
        return Path(self._home.name)


class _Merge:
    """Merges runs in rounds, each of what all of them have in memory.

    Sorting the blocks of a round at once is faster than comparing item by item in a heap: Python's sort merges the runs
    it finds.
    """

    def __init__(self, runs: Sequence[Run], descending: bool) -> None:
        self._runs, self._descending = runs, descending
        self._readers: list[RunReader] = []

    def rounds(self) -> Iterator[tuple[list[Item], Iterator[Item]]]:
        """Items before some key (or hash), one run's after the other's, and then those at that key, in turn."""
        try:
            self._readers = [RunReader(run, self._descending) for run in self._runs]
            while readers := [reader for reader in self._readers if not reader.ended]:
                ends = [reader.last for reader in readers]
                limit = max(ends) if self._descending else min(ends)
                yield [item for reader in readers for item in reader.before(limit)], _all(readers, limit)
        finally:
            self.close()

    def close(self) -> None:
        for reader in self._readers:
            reader.close()
        for run in self._runs:
            run.file.remove()


def _all(readers: list[RunReader], limit: Any) -> Iterator[Item]:
    for reader in readers:
        yield from reader.equal(limit)


def _by_key(items: list[Item], by_hash: bool, descending: bool) -> Iterator[Item]:
    """Items with those of equal keys joined, in order."""
    if by_hash:
        groups: Groups = defaultdict(list)
        for key, values in items:
            groups[key].extend(values)
        for key in _by_hash(list(groups)):
            yield key, groups[key]
        return
    items.sort(key=itemgetter(0), reverse=descending)
    rest = iter(items)
    for last, held in rest:
        for key, values in rest:
            if key == last:
                held += values
                continue
            yield last, held
            last, held = key, values
        yield last, held


def _by_hash(keys: list[Any]) -> list[Any]:
    order = numpy.argsort(hashes_of(keys), kind="stable").tolist()
    return [keys[number] for number in order]
