"""Reports: what a task did, in numbers; sent now and then while it runs, and with its result."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from paibook.clusters.task_events import emit
from paibook.runtimes.mapreduce.bad_records import BadFile

INTERVAL = 0.5  # seconds between what a task says of itself


@dataclass(frozen=True, slots=True)
class KeySize:
    """A key with the number of its values and about how many bytes they take."""

    key: str
    values: int
    bytes: int


@dataclass(slots=True)
class Report:
    """What a task did.

    Attributes:
        records_in, records_out: What it read and what it handed on.
        bytes_in, bytes_out: The same as stored.
        spills, spilled_bytes: Sorted runs, or parts of its output, that it wrote because memory was full.
        seconds: It took.
        counters: The program's own.
        bad: What it skipped under ``--max-bad``.
        largest: Its largest keys.
    """

    records_in: int = 0
    records_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    spills: int = 0
    spilled_bytes: int = 0
    seconds: float = 0.0
    counters: Mapping[str, int] = field(default_factory=dict)
    bad: BadFile | None = None
    largest: list[KeySize] = field(default_factory=list)


class Reporter:
    """Sends a running task's report, at most every ``INTERVAL`` seconds.

    Args:
        report: Kept up to date by the task.
        counters: The task's.
    """

    def __init__(self, report: Report, counters: Counter[str]) -> None:
        self.report = report
        self._counters = counters
        self._began = time.monotonic()
        self._next = self._began + INTERVAL
        emit("progress", {"started": True})

    def tick(self) -> None:
        """Send it where it is time to."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + INTERVAL
            emit("progress", self._live())

    def close(self) -> Report:
        """The final report."""
        self.report.seconds = time.monotonic() - self._began
        self.report.counters = dict(self._counters)
        return self.report

    def _live(self) -> dict[str, Any]:
        names = ("records_in", "records_out", "bytes_in", "bytes_out", "spills", "spilled_bytes")
        return {name: getattr(self.report, name) for name in names} | {"counters": dict(self._counters)}
