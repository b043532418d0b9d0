"""A run as it stands, for whoever draws it: splits, tasks, the shuffle as it fills. JSON-able, and of bounded size.

Tasks and partitions are drawn in groups of neighbours, so that a run of ten thousand tasks has a picture no larger than
one of ten. Counts are kept as events come; what a picture costs does not grow with the number of tasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from paibook.runtimes.mapreduce.report import Report
from paibook.runtimes.mapreduce.shuffle import Buckets

ROWS, COLUMNS = 16, 16  # groups of tasks, and of partitions
NUMBERS = ("records_in", "records_out", "bytes_in", "bytes_out", "spills", "spilled_bytes")

Label = tuple[str, str]


@dataclass
class _Group:
    """Neighbouring tasks of a stage."""

    first: int
    last: int
    states: Counter[str]
    numbers: Counter[str] = field(default_factory=Counter)
    retried: int = 0
    backups: int = 0


class _Stage:
    def __init__(self, name: str, total: int, labels: Sequence[Label], takes: Sequence[range], buckets: int) -> None:
        self.name, self.total, self._labels, self._takes = name, total, labels, takes
        self.groups = [_Group(low, high - 1, Counter(waiting=high - low)) for low, high in _cut(total, ROWS)]
        self._states = ["waiting"] * total
        self._live: dict[int, Mapping[str, Any]] = {}
        self._open_shuffle(buckets)

    def group(self, number: int) -> _Group:
        return self.groups[number * len(self.groups) // self.total]

    def set_state(self, number: int, state: str) -> None:
        group, before = self.group(number), self._states[number]
        group.states[before] -= 1
        group.states[state] += 1
        self._states[number] = state

    def take_up(self, number: int) -> None:
        if self._states[number] != "done":
            self.set_state(number, "running")

    def add_live(self, number: int, report: Mapping[str, Any]) -> None:
        if self._states[number] != "done":
            self._live[number] = report

    def end(self, number: int, report: Report, buckets: Buckets | None) -> None:
        self._live.pop(number, None)
        self.set_state(number, "done")
        group = self.group(number)
        for name in NUMBERS:
            group.numbers[name] += getattr(report, name)
        if buckets is not None:
            self._shuffled(number, buckets)

    def lose(self, number: int, is_at_work_elsewhere: bool) -> None:
        self.group(number).retried += 1
        self._live.pop(number, None)
        if not is_at_work_elsewhere:
            self.set_state(number, "waiting")

    def _open_shuffle(self, buckets: int) -> None:
        self._buckets = buckets
        self._columns = _cut(buckets, COLUMNS)
        self._records = [[0] * len(self._columns) for _ in self.groups]
        self._bytes = [[0] * len(self._columns) for _ in self.groups]

    def _shuffled(self, number: int, buckets: Buckets) -> None:
        if len(buckets) != self._buckets:
            self._open_shuffle(len(buckets))
        row = number * len(self.groups) // self.total
        for column, (low, high) in enumerate(self._columns):
            for segments in buckets[low:high]:
                for segment in segments:
                    self._records[row][column] += segment.values
                    # Segments that stay in their worker's memory have no length here.
                    self._bytes[row][column] += segment.length or segment.memory

    def picture(self) -> dict[str, Any]:
        groups = [self._group_picture(group) for group in self.groups]
        live: dict[int, Counter[str]] = {}
        for number, report in list(self._live.items()):
            row = number * len(self.groups) // self.total
            live.setdefault(row, Counter()).update({name: report.get(name, 0) for name in NUMBERS})
        for row, numbers in live.items():
            for name, count in (+numbers).items():  # without zeros
                groups[row][name] = groups[row].get(name, 0) + count
        shuffle = None
        if self._columns:
            columns = [[low, high - 1] for low, high in self._columns]
            records, sizes = [list(row) for row in self._records], [list(row) for row in self._bytes]
            shuffle = {"buckets": self._buckets, "columns": columns, "records": records, "bytes": sizes}
        return {"name": self.name, "tasks": self.total, "groups": groups, "shuffle": shuffle}

    def _group_picture(self, group: _Group) -> dict[str, Any]:
        counts = {**group.states, **group.numbers, "retried": group.retried, "backups": group.backups}
        return {
            "first": group.first,
            "last": group.last,
            "label": self._label(group),
            "buckets": self._taken(group),
            **{name: count for name, count in counts.items() if count},
        }

    def _label(self, group: _Group) -> list[str]:
        if group.last >= len(self._labels):
            return ["", ""]
        name, part = self._labels[group.first]
        others = group.last - group.first
        return [name, f"and {others} more" if others else part]

    def _taken(self, group: _Group) -> list[int] | None:
        if group.last >= len(self._takes):
            return None
        first, last = self._takes[group.first], self._takes[group.last]
        return [first.start, last.stop - 1] if first and last else None


class JobPicture:
    """The picture of one run, kept up to date by its scheduler; used by one thread.

    Args:
        stages: Their names, in order.
        lines: For each stage the functions that it calls, with their lines in the cell.
        buckets: That each stage but the last cuts its output into.
        labels: What the splits of the first stage are called, in their order.
    """

    def __init__(
        self,
        stages: Sequence[str],
        lines: Mapping[str, Mapping[str, int]] | None = None,
        buckets: int = 0,
        labels: Sequence[Label] = (),
    ) -> None:
        self._names = list(stages)
        self._lines = lines or {}
        self._buckets = buckets
        self._labels = labels
        self._takes: Sequence[range] = ()
        self._stages: dict[str, _Stage] = {}
        self._now = ""

    def take_buckets(self, ranges: Sequence[range]) -> None:
        """Say which buckets each task of the next stage takes."""
        self._takes = ranges

    def begin(self, stage: str, total: int) -> None:
        """A stage begins, all of its tasks waiting."""
        labels = () if self._stages else self._labels
        buckets = self._buckets if stage in self._names[:-1] else 0
        self._stages[stage] = _Stage(stage, total, labels, self._takes, buckets)
        self._now, self._takes = stage, ()

    def submit(self, number: int, is_backup: bool = False) -> None:
        """A task of the present stage was given to the cluster; a backup is a second attempt at one that is slow."""
        stage = self._stages[self._now]
        if is_backup:
            stage.group(number).backups += 1
        else:
            stage.set_state(number, "queued")

    def take_up(self, number: int) -> None:
        """A worker has begun with it."""
        self._stages[self._now].take_up(number)

    def report(self, number: int, numbers: Mapping[str, Any]) -> None:
        """What a running task says of itself; see ``Report``."""
        self._stages[self._now].add_live(number, numbers)

    def end(self, number: int, report: Report, value: Any) -> None:
        """A task is done; ``value`` is the task's, buckets where it hands on to a shuffle."""
        self._stages[self._now].end(number, report, value if isinstance(value, list) else None)

    def lose(self, number: int, is_at_work_elsewhere: bool) -> None:
        """An attempt's worker has died; the task is done again unless another attempt goes on."""
        self._stages[self._now].lose(number, is_at_work_elsewhere)

    def draw(self, counters: Mapping[str, int] | None = None) -> dict[str, Any]:
        """The picture.

        Returns:
            ``model``; ``stage``: the present one; ``counters``; ``lines``: the cell's lines of the functions that the
            present stage calls; ``stages``: name, tasks (0: not known yet), ``groups`` and ``shuffle``.

            A group has its first and last task, the name and part of its first split, the first and last bucket that
            its tasks take, and where it is not 0, how many are waiting, queued, running, done, retried, backups, and
            their numbers as in ``Report``. A shuffle has ``buckets``, the first and last bucket of each column, and
            records and bytes for each group and column.
        """
        planned = [self._stages[name].picture() if name in self._stages else _planned(name) for name in self._names]
        others = [stage.picture() for name, stage in self._stages.items() if name not in self._names]
        return {
            "model": "mapreduce",
            "stage": self._now,
            "stages": planned + others,
            "counters": dict(counters or {}),
            "lines": dict(self._lines.get(self._now, {})),
        }


def _planned(name: str) -> dict[str, Any]:
    return {"name": name, "tasks": 0, "groups": [], "shuffle": None}


def _cut(total: int, most: int) -> list[tuple[int, int]]:
    """At most so many ranges of about equal size, in which ``n`` lies in range ``n * len(ranges) // total``.

    >>> _cut(5, 2)
    [(0, 3), (3, 5)]
    """
    count = min(total, most)
    # The first number of range i is the least n with n * count // total == i.
    borders = [-(-i * total // count) for i in range(count + 1)] if count else []
    return list(pairwise(borders))
