"""Decimation: the history of each metric in bounded memory, whatever the number of reports.

Reports fall into buckets of equal width in steps; when there are more buckets than the capacity, the width doubles
and neighbours merge. A bucket keeps mean, minimum and maximum, so no spike is lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paibook.metrics import Metric

CAPACITY = 1000
RANK_CAPACITY = 300
MAX_CURVES = 24
MAX_RANKS = 16


@dataclass(frozen=True, slots=True)
class Points:
    """One decimated series; all arrays are float64 of the same length, ordered by ``x``.

    Attributes:
        x: Mean step of each bucket.
        mean: Mean of the finite values; NaN where there was none.
        low: Minimum of the finite values, NaN where there was none.
        high: Maximum of the finite values, NaN where there was none.
        marks: Steps (shorter than ``x``) of the buckets in which a value was not finite.
    """

    x: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    marks: NDArray[np.float64]

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
        # bucket number -> [reports, sum of steps, finite reports, sum, minimum, maximum]
        self._buckets: dict[int, list[float]] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def add(self, step: int, value: float) -> None:
        """Count one report."""
        key = step // self.width
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = [0, 0, 0, 0.0, math.inf, -math.inf]
        bucket[0] += 1
        bucket[1] += step
        if math.isfinite(value):
            bucket[2] += 1
            bucket[3] += value
            if value < bucket[4]:
                bucket[4] = value
            if value > bucket[5]:
                bucket[5] = value
        if len(self._buckets) > self.capacity:
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
        rows = np.array([self._buckets[key] for key in sorted(self._buckets)], dtype=np.float64).reshape(-1, 6)
        reports, steps, finite, total, low, high = rows.T
        none = finite == 0
        x = steps / np.maximum(reports, 1)
        return Points(
            x=x,
            mean=np.where(none, np.nan, total / np.maximum(finite, 1)),
            low=np.where(none, np.nan, low),
            high=np.where(none, np.nan, high),
            marks=x[finite < reports],
        )

    def _shrink(self) -> None:
        while len(self._buckets) > self.capacity:
            self.width *= 2
            merged: dict[int, list[float]] = {}
            for key, bucket in self._buckets.items():
                into = merged.get(key // 2)
                merged[key // 2] = bucket if into is None else _merge(into, bucket)
            self._buckets = merged


def _merge(a: list[float], b: list[float]) -> list[float]:
    return [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3], min(a[4], b[4]), max(a[5], b[5])]


class Curve:
    """One metric over the steps: over all ranks together, and for each of the first ``MAX_RANKS`` ranks.

    A report without a step gets the number of reports its rank made before.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.together = Buckets()
        self.ranks: dict[int, Buckets] = {}
        self.reports = 0
        self.not_finite = 0
        self.first_not_finite: tuple[int, int, float] | None = None  # step, rank, value
        self.low = math.inf
        self.high = -math.inf
        self._counts: dict[int, int] = {}
        self._first = _StepMean()
        self._last = _StepMean()

    def add(self, metric: Metric) -> None:
        """Count one report of this metric."""
        rank, value = metric.rank, metric.value
        count = self._counts.get(rank, 0)
        self._counts[rank] = count + 1
        step = count if metric.step is None else metric.step
        self.reports += 1
        self.together.add(step, value)
        buckets = self.ranks.get(rank)
        if buckets is None and len(self.ranks) < MAX_RANKS:
            buckets = self.ranks[rank] = Buckets(RANK_CAPACITY)
        if buckets is not None:
            buckets.add(step, value)
        if self._first.step is None or step <= self._first.step:
            self._first.add(step, value)
        if self._last.step is None or step >= self._last.step:
            self._last.add(step, value)
        if math.isfinite(value):
            self.low = min(self.low, value)
            self.high = max(self.high, value)
        else:
            self.not_finite += 1
            self.first_not_finite = self.first_not_finite or (step, rank, value)

    @property
    def world_size(self) -> int:
        """How many ranks reported this metric."""
        return len(self._counts)

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
        best = self.high if is_score(self.name) else self.low
        return best if math.isfinite(best) else math.nan


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


class History:
    """Every metric of a run as a decimated curve: the first ``MAX_CURVES`` names; further names are only counted."""

    def __init__(self, metrics: Iterable[Metric] = ()) -> None:
        self.curves: dict[str, Curve] = {}
        self.left_out: set[str] = set()
        self.reports = 0
        self.add(metrics)

    def add(self, metrics: Iterable[Metric]) -> None:
        """Count reports."""
        for metric in metrics:
            self.reports += 1
            curve = self.curves.get(metric.name)
            if curve is None:
                if len(self.curves) >= MAX_CURVES:
                    if len(self.left_out) < 10_000:
                        self.left_out.add(metric.name)
                    continue
                curve = self.curves[metric.name] = Curve(metric.name)
            curve.add(metric)
