"""How stale what a worker read was: counted for every pull, and logged so that it can be plotted.

The staleness of a pull is the number of clocks by which the slowest worker was behind the one that pulled, when it was
answered (Ho et al., 2013): the pull may miss updates of that many clocks, its own being the last.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping

from paibook.metrics import log

PREFIX = "staleness/"  # of the metrics' names; the table's follows
LOG_SECONDS = 0.05  # a worker whose clocks are shorter logs the largest of several

Histogram = dict[int, int]  # staleness in clocks to number of pulls


class StalenessRecord:
    """What one worker observed, by table.

    Args:
        logs: Whether to log it too; under BSP it is always 0.
    """

    def __init__(self, logs: bool = False) -> None:
        self._logs = logs
        self._counts: dict[str, Counter[int]] = {}
        self._largest: dict[str, int] = {}
        self._logged = 0.0

    def observe(self, table: str, staleness: int) -> None:
        """A pull was answered; less than 0 (the others have left the run) counts as 0."""
        seen = max(staleness, 0)
        self._counts.setdefault(table, Counter())[seen] += 1
        if self._logs:
            self._largest[table] = max(seen, self._largest.get(table, 0))

    def end_clock(self, clock: int, last: bool = False) -> None:
        """Log the largest staleness of each table pulled since the last time, under ``staleness/TABLE``."""
        if not self._largest or (time.monotonic() < self._logged + LOG_SECONDS and not last):
            return
        self._logged = time.monotonic()
        log(clock, **{PREFIX + table: value for table, value in self._largest.items()})
        self._largest.clear()

    def histograms(self) -> dict[str, Histogram]:
        """Pulls by staleness, by table."""
        return {table: dict(sorted(counts.items())) for table, counts in self._counts.items()}


def by_table(workers: Iterable[Mapping[str, Histogram]]) -> dict[str, tuple[Histogram, ...]]:
    """Histograms by table, one for each worker in rank order, from each worker's by table.

    >>> by_table([{"w": {0: 3}}, {}])
    {'w': ({0: 3}, {})}
    """
    ranks = list(workers)
    names = dict.fromkeys(name for histograms in ranks for name in histograms)
    return {name: tuple(dict(histograms.get(name, {})) for histograms in ranks) for name in names}


def describe(staleness: Mapping[str, tuple[Histogram, ...]]) -> list[str]:
    """A line for each table of which a pull was stale at all.

    >>> describe({"w": ({0: 6, 2: 2}, {1: 2}), "b": ({0: 9},)})
    ["staleness of 'w': 0.6 clocks on average, 2 at most, over 10 pulls"]
    """
    lines = []
    for table, histograms in staleness.items():
        total: Counter[int] = Counter()
        for histogram in histograms:
            total.update(histogram)
        pulls = total.total()
        if pulls and max(total):
            mean = sum(value * count for value, count in total.items()) / pulls
            lines.append(
                f"staleness of {table!r}: {mean:.2g} clocks on average, {max(total)} at most, over {pulls} pulls"
            )
    return lines
