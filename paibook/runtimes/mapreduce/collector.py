"""The collector: what a task's functions yield for the next shuffle, grouped by key, combined, cut and spilled."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from paibook.errors import DataError
from paibook.runtimes.mapreduce.job import StageFunctions
from paibook.runtimes.mapreduce.memory import size_of_groups
from paibook.runtimes.mapreduce.mistakes import PAIRS, checked, explained
from paibook.runtimes.mapreduce.report import Report
from paibook.runtimes.mapreduce.shuffle import Buckets, Groups, ShuffleWriter, add_groups, bucket_numbers
from paibook.runtimes.mapreduce.unsendable import unsendable

PENDING = 500_000  # values after which combining them is worth while, whatever memory there is
FIRST = 16  # records before the first look at what they gave
PORTION = 4  # the part of the limits that may come between two looks


class Collector:
    """Groups pairs for one stage's shuffle.

    Args:
        functions: The stage's.
        writer: Where the groups go.
        budget: Bytes that may be held as Python objects.
        where: Names the task in errors.
        report: Kept up to date.

    Attributes:
        groups: Key to values; a missing key makes its list itself, so that a loop may append without asking.
    """

    def __init__(
        self, functions: StageFunctions, writer: ShuffleWriter, budget: int, where: str, report: Report
    ) -> None:
        self.groups: Groups = defaultdict(list)
        self._combiner, self._partition = functions.pair_combiner, functions.partition
        self._writer = writer
        self._budget = budget
        self._where = where
        self._report = report
        self._since, self._next = 0, FIRST  # records since the last look, and from there to the next one
        self._held, self._size = 0, 0  # values and bytes at the last look

    @property
    def room(self) -> int:
        """Records that may come before the next ``check``, at least one."""
        return max(1, self._next - self._since)

    def check(self, records: int) -> None:
        """Combine, and spill where that is not enough; to be called when ``room`` records have come, at the latest."""
        self._since += records
        if self._since < self._next:
            return
        self._look()
        if self._held < PENDING and self._size < self._budget:
            return
        held = self._held
        if self._combiner is not None:
            self.groups = self._combined()
            self._measure()
            if self._size < self._budget // 2 and 2 * self._held <= max(held, PENDING):
                return
        elif self._size < self._budget:
            return
        self._spill()
        self._measure()

    def _look(self) -> None:
        """Measure what is held, and see from its growth when to look again."""
        held, size = self._held, self._size
        self._measure()
        values = max(1, self._held - held) / self._since
        grown = max(1, self._size - size) / self._since
        fitting = int(min(PENDING // PORTION / values, self._budget // PORTION / grown))
        # No more than twice as many: the next records may give more than those before them.
        self._next = max(1, min(2 * self._since, fitting))
        self._since = 0

    def _measure(self) -> None:
        self._held = sum(map(len, self.groups.values()))
        self._size = size_of_groups(self.groups)

    def close(self) -> Buckets:
        """Hand on the rest; everything, cut into buckets.

        Raises:
            UserCodeError: ``combine`` or ``partition`` raised, or a key or value cannot be sent.
            DataError: The disk is full.
        """
        self.groups = self._combined()
        self._pack()
        buckets = self._writer.close()
        self._report.bytes_out += self._writer.bytes
        self._report.records_out += sum(segment.values for bucket in buckets for segment in bucket)
        return buckets

    def _spill(self) -> None:
        before = self._writer.bytes
        self._pack()
        self._report.spills += 1
        self._report.spilled_bytes += self._writer.bytes - before

    def _combined(self) -> Groups:
        """The groups after ``combine``; a lone value has nothing to be combined with and stays as it is."""
        if self._combiner is None or not self.groups:
            return self.groups
        combine = checked(self._combiner, "combine", PAIRS)
        made: Groups = defaultdict(list)
        pair: Any = (None, None)
        key = None
        try:
            for key, values in self.groups.items():
                if len(values) == 1:
                    made[key].append(values[0])
                    continue
                for pair in combine(key, values):
                    new_key, value = pair
                    made[new_key].append(value)
        except (Exception, SystemExit) as error:
            raise explained(error, f"{self._where}, key {key!r:.80}", "combine", pair) from error
        return made

    def _pack(self) -> None:
        groups, self.groups = self.groups, defaultdict(list)
        if not groups:
            return
        held = sum(map(len, groups.values()))
        size = max(1, size_of_groups(groups) // max(1, held))
        numbers = self._numbers(groups)
        try:
            add_groups(self._writer, groups, numbers, size)
        except DataError:
            raise
        except Exception as error:  # pickling runs the values' own code, which may raise anything
            raise unsendable(self._where, error) from error

    def _numbers(self, groups: Groups) -> Any:
        try:
            return bucket_numbers(groups.keys(), len(self._writer.buckets), self._partition)
        except Exception as error:
            if self._partition is not None:
                raise explained(error, self._where, "partition") from error
            raise unsendable(self._where, error) from error
