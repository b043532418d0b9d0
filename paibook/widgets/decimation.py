"""Decimation: the history of each metric in bounded memory, whatever the number of reports.

Reports fall into buckets of equal width in steps; when there are more buckets than the capacity, the width doubles
and neighbours merge. A bucket keeps mean, minimum and maximum, so no spike is lost. A few reports are counted one by
one, many at once by NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paibook.metrics import NO_STEP, Columns, Metric

CAPACITY = 1000
RANK_CAPACITY = 300
MAX_CURVES = 24
MAX_RANKS = 16
MANY = 400  # reports from which NumPy is faster than a loop


@dataclass(frozen=True, slots=True)
class Points:
    """One decimated series; all arrays are float64 of the same length, ordered by ``x``.

    Attributes:
        x: Mean step of each bucket.
        mean: Mean of the finite values; NaN where there was none.
        low: Minimum of the finite values, NaN where there was none.
        high: Maximum of the finite values, NaN where there was none.
        marks: Steps (shorter than ``x``) of the buckets in which a value was not finite.
        time: Mean time of each bucket, seconds since the epoch.
    """

    x: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    marks: NDArray[np.float64]
    time: NDArray[np.float64]

    @property
    def band(self) -> bool:
        """Whether minimum and maximum say more than the mean."""
        return bool(np.any(self.high > self.low))


class Buckets:
    """At most ``capacity`` buckets over the steps seen (two or more); reports may come in any order of step."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        # Doubling the width never merges bucket -1 with bucket 0.
        self.capacity = max(2, capacity)
        self.width = 1
        # bucket number -> [reports, sum of steps, finite reports, sum, minimum, maximum, sum of times]
        self._buckets: dict[int, list[float]] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def add(self, step: int, value: float, time: float = 0.0) -> None:
        """Count one report."""
        key = step // self.width
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = [0, 0, 0, 0.0, math.inf, -math.inf, 0.0]
        bucket[0] += 1
        bucket[1] += step
        bucket[6] += time
        if math.isfinite(value):
            bucket[2] += 1
            bucket[3] += value
            if value < bucket[4]:
                bucket[4] = value
            if value > bucket[5]:
                bucket[5] = value
        if len(self._buckets) > self.capacity:
            self._shrink()

    def extend(self, steps: NDArray[np.int64], values: NDArray[np.float64], times: NDArray[np.float64]) -> None:
        """Count many reports."""
        width = self.width
        ordered = np.sort(steps)
        while len(keys := _distinct(ordered // self.width)) > self.capacity:
            self.width *= 2
        if self.width > width:
            self._regroup(self.width // width)
        where = np.searchsorted(keys, steps // self.width)
        finite = np.isfinite(values)
        kept = np.where(finite, values, 0.0)
        low, high = np.full(len(keys), math.inf), np.full(len(keys), -math.inf)
        np.minimum.at(low, where[finite], values[finite])
        np.maximum.at(high, where[finite], values[finite])
        sums = [np.bincount(where, part, len(keys)) for part in (None, steps, finite, kept)]
        rows = np.column_stack([*sums, low, high, np.bincount(where, times, len(keys))]).tolist()
        for key, row in zip(keys.tolist(), rows, strict=True):
            known = self._buckets.get(key)
            self._buckets[key] = row if known is None else _merge(known, row)
        self._shrink()

    def reduced(self, capacity: int) -> Buckets:
        """A copy with at most ``capacity`` buckets."""
        copy = Buckets(capacity)
        copy.width = self.width
        copy._buckets = {key: list(bucket) for key, bucket in self._buckets.items()}
        copy._shrink()
        return copy

    def points(self) -> Points:
        """The buckets as arrays, ordered by step."""
        rows = np.array([self._buckets[key] for key in sorted(self._buckets)], dtype=np.float64).reshape(-1, 7)
        reports, steps, finite, total, low, high, times = rows.T
        none = finite == 0
        x = steps / np.maximum(reports, 1)
        return Points(
            x=x,
            mean=np.where(none, np.nan, total / np.maximum(finite, 1)),
            low=np.where(none, np.nan, low),
            high=np.where(none, np.nan, high),
            marks=x[finite < reports],
            time=times / np.maximum(reports, 1),
        )

    def _shrink(self) -> None:
        while len(self._buckets) > self.capacity:
            self.width *= 2
            self._regroup(2)

    def _regroup(self, by: int) -> None:
        merged: dict[int, list[float]] = {}
        for key, bucket in self._buckets.items():
            into = merged.get(key // by)
            merged[key // by] = bucket if into is None else _merge(into, bucket)
        self._buckets = merged


def _distinct(ordered: NDArray[np.int64]) -> NDArray[np.int64]:
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])]


def _merge(a: list[float], b: list[float]) -> list[float]:
    sums = [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]]
    return [*sums, min(a[4], b[4]), max(a[5], b[5]), a[6] + b[6]]


class Curve:
    """One metric over the steps: over all ranks together, and for each of the first ``MAX_RANKS`` ranks."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.together = Buckets()
        self.ranks: dict[int, Buckets] = {}
        self.reports = 0
        self.not_finite = 0
        self.first_not_finite: tuple[int, int, float] | None = None  # step, rank, value
        self.low = (math.inf, 0)  # value, and the step at which it was first reported
        self.high = (-math.inf, 0)
        self._world: set[int] = set()
        self._first = _StepMean()
        self._last = _StepMean()

    def add(self, step: int, value: float, rank: int, time: float = 0.0) -> None:
        """Count one report of this metric."""
        self.reports += 1
        self._world.add(rank)
        self.together.add(step, value, time)
        buckets = self._buckets_of(rank)
        if buckets is not None:
            buckets.add(step, value, time)
        if self._starts(step):
            self._first.add(step, value)
        if self._ends(step):
            self._last.add(step, value)
        if math.isfinite(value):
            if value < self.low[0]:
                self.low = (value, step)
            if value > self.high[0]:
                self.high = (value, step)
        else:
            self.not_finite += 1
            self.first_not_finite = self.first_not_finite or (step, rank, value)

    def extend(
        self,
        steps: NDArray[np.int64],
        values: NDArray[np.float64],
        ranks: NDArray[np.int32],
        times: NDArray[np.float64],
    ) -> None:
        """Count reports, in order of arrival."""
        if len(steps) < MANY:
            for row in zip(steps.tolist(), values.tolist(), ranks.tolist(), times.tolist(), strict=True):
                self.add(*row)
            return
        self.reports += len(steps)
        self.together.extend(steps, values, times)
        for rank in dict.fromkeys(ranks.tolist()):
            self._world.add(rank)
            buckets = self._buckets_of(rank)
            if buckets is not None:
                own = ranks == rank
                buckets.extend(steps[own], values[own], times[own])
        for value in values[steps == steps.min()].tolist() if self._starts(int(steps.min())) else ():
            self._first.add(int(steps.min()), value)
        for value in values[steps == steps.max()].tolist() if self._ends(int(steps.max())) else ():
            self._last.add(int(steps.max()), value)
        self._extremes(steps, values, ranks)

    def _starts(self, step: int) -> bool:
        return self._first.step is None or step <= self._first.step

    def _ends(self, step: int) -> bool:
        return self._last.step is None or step >= self._last.step

    def _extremes(self, steps: NDArray[np.int64], values: NDArray[np.float64], ranks: NDArray[np.int32]) -> None:
        finite = np.isfinite(values)
        if finite.any():
            lowest = int(np.where(finite, values, math.inf).argmin())
            highest = int(np.where(finite, values, -math.inf).argmax())
            if values[lowest] < self.low[0]:
                self.low = (float(values[lowest]), int(steps[lowest]))
            if values[highest] > self.high[0]:
                self.high = (float(values[highest]), int(steps[highest]))
        if not finite.all():
            first = int(finite.argmin())
            self.not_finite += int(len(finite) - finite.sum())
            told = (int(steps[first]), int(ranks[first]), float(values[first]))
            self.first_not_finite = self.first_not_finite or told

    def _buckets_of(self, rank: int) -> Buckets | None:
        buckets = self.ranks.get(rank)
        if buckets is None and len(self.ranks) < MAX_RANKS:
            buckets = self.ranks[rank] = Buckets(RANK_CAPACITY)
        return buckets

    @property
    def world_size(self) -> int:
        """How many ranks reported this metric."""
        return len(self._world)

    @property
    def first(self) -> float:
        """The value at the lowest step, averaged over the ranks that reported it."""
        return self._first.mean

    @property
    def last(self) -> float:
        """The value at the highest step, averaged over the ranks that reported it."""
        return self._last.mean

    @property
    def last_step(self) -> int:
        """The highest step."""
        return self._last.step or 0

    @property
    def best(self) -> float:
        """The highest value of a score, the lowest of anything else; NaN when no value was finite."""
        best = self._best[0]
        return best if math.isfinite(best) else math.nan

    @property
    def best_step(self) -> int:
        """The step at which the best value was first reported."""
        return self._best[1]

    @property
    def _best(self) -> tuple[float, int]:
        return self.high if is_score(self.name) else self.low


@dataclass(slots=True)
class _StepMean:
    """The mean of what was reported at one step."""

    step: int | None = None
    total: float = 0.0
    count: int = 0

    def add(self, step: int, value: float) -> None:
        if step != self.step:
            self.step, self.total, self.count = step, 0.0, 0
        self.total += value
        self.count += 1

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else math.nan


_SCORES = ("acc", "auc", "f1", "score", "precision", "recall", "reward", "r2", "bleu", "throughput", "per_second")


def is_score(name: str) -> bool:
    """Whether more is better, judging by the metric's name.

    >>> is_score("val_accuracy"), is_score("loss")
    (True, False)
    """
    return any(word in name.lower() for word in _SCORES)


@dataclass(frozen=True)
class Window:
    """A stretch of a run: ``low`` to ``high``, both included, in ``step`` or in ``time`` (seconds since the epoch)."""

    kind: str
    low: float
    high: float


class History:
    """Metrics of a run as decimated curves: the first ``MAX_CURVES`` names; further names are only counted.

    A report without a step gets the number of such reports its rank made of that metric before.

    Args:
        metrics: Counted at once.
        picked: Which names may have a curve; all of them by default.
        window: Only reports within it are counted.
    """

    def __init__(
        self,
        metrics: Iterable[Metric] | Columns = (),
        picked: Callable[[str], bool] = lambda name: True,
        window: Window | None = None,
    ) -> None:
        self.curves: dict[str, Curve] = {}
        self.left_out: set[str] = set()
        self.reports = 0
        self._picked = picked
        self._window = window
        self._counts: dict[tuple[str, int], int] = {}
        self.add(metrics)

    def add(self, metrics: Iterable[Metric] | Columns) -> None:
        """Count reports."""
        columns = metrics if isinstance(metrics, Columns) else Columns.of(metrics)
        self.reports += len(columns)
        order = np.argsort(columns.code, kind="stable")
        ends = np.flatnonzero(np.diff(columns.code[order])) + 1
        groups = np.split(order, ends) if len(order) else []
        for rows in sorted(groups, key=lambda rows: int(rows[0])):
            curve = self._curve(columns.names[columns.code[rows[0]]])
            if curve is not None:
                self._extend(curve, columns, rows)

    def _curve(self, name: str) -> Curve | None:
        curve = self.curves.get(name)
        if curve is None and self._picked(name) and len(self.curves) < MAX_CURVES:
            curve = self.curves[name] = Curve(name)
        if curve is None and len(self.left_out) < 10_000:
            self.left_out.add(name)
        return curve

    def _extend(self, curve: Curve, columns: Columns, rows: NDArray[np.int64]) -> None:
        steps, ranks = columns.step[rows], columns.rank[rows]
        if (steps == NO_STEP).any():
            steps = self._numbered(curve.name, steps, ranks)
        values, times = columns.value[rows], columns.time[rows]
        if self._window is not None:
            where = steps if self._window.kind == "step" else times
            inside = (where >= self._window.low) & (where <= self._window.high)
            steps, values, ranks, times = steps[inside], values[inside], ranks[inside], times[inside]
        if len(steps):
            curve.extend(steps, values, ranks, times)

    def _numbered(self, name: str, steps: NDArray[np.int64], ranks: NDArray[np.int32]) -> NDArray[np.int64]:
        numbered = steps.tolist()
        for i, rank in enumerate(ranks.tolist()):
            if numbered[i] == NO_STEP:
                numbered[i] = self._counts.get((name, rank), 0)
                self._counts[name, rank] = numbered[i] + 1
        return np.array(numbered, dtype=np.int64)
