"""Stage meters: from what a run reports of its stages to rates and times left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from paibook.runtimes.contract import Progress

LEAST_SHARE = 0.1  # of a stage before its end is foretold
LEAST_SECONDS = 2.0


@dataclass(frozen=True)
class Reading:
    """A stage as it stands.

    Attributes:
        name, unit, done, total: As reported; ``total`` is None where it is unknown.
        seconds: It has taken so far, from its first work to its latest report.
        left: Seconds until it ends at this pace, or None where that cannot be told yet.
        details: ``records``, ``bytes``, ``running``, ``retried``, ``backups``, ``spills``, ``spilled_bytes``, as far as
            the run reports them.
    """

    name: str
    unit: str
    done: float
    total: float | None
    seconds: float
    left: float | None
    details: Mapping[str, float]

    def detail(self, name: str) -> float:
        """One of the details, 0 where it is not reported."""
        return self.details.get(name, 0)

    @property
    def state(self) -> str:
        """``waiting``, ``running`` or ``done``."""
        if self.total is not None and self.done >= self.total:
            return "done"
        return "running" if self.done or self.detail("running") or self.detail("records") else "waiting"

    def stopped(self) -> Reading:
        """The same without what only a stage that goes on has: running tasks and an end to come."""
        details = {name: value for name, value in self.details.items() if name != "running"}
        return replace(self, left=None, details=details)

    def rate(self, name: str) -> float | None:
        """A detail a second, or None where there is none or the time is too short to tell."""
        value = self.done if name == self.unit else self.detail(name)
        return value / self.seconds if value and self.seconds >= 0.1 else None


class StageMeters:
    """Follows the stages of a run; times are given, so that nothing here depends on the clock.

    Attributes:
        counters: The program's own, as last reported for the whole run.
    """

    def __init__(self) -> None:
        self._stages: dict[str, _Stage] = {}
        self.counters: dict[str, int] = {}

    def update(self, progress: Progress, now: float) -> None:
        """Take a report; times are seconds of any one clock."""
        stage = self._stages.setdefault(progress.stage, _Stage(progress, now))
        stage.update(progress, now)
        # A new one each time: who draws them may be going through the old one.
        self.counters = {**self.counters, **progress.counters}
        if _at_work(progress):
            for other in list(self._stages.values()):
                other.wait_for(now)

    def read(self) -> list[Reading]:
        """The stages as they stand, in the order in which they were first reported."""
        return [stage.read() for stage in list(self._stages.values())]


class _Stage:
    def __init__(self, progress: Progress, now: float) -> None:
        self._progress = progress
        self._latest = now
        self._began: float | None = now if _at_work(progress) else None

    def update(self, progress: Progress, now: float) -> None:
        if self._began is None and _at_work(progress):
            # A stage may be announced long before its first task begins; with something done already, it began unseen.
            self._began = self._latest if progress.done or progress.details.get("records") else now
        self._progress, self._latest = progress, now

    def wait_for(self, now: float) -> None:
        """Note that another stage has just worked; one that has not begun waits for it."""
        if self._began is None:
            self._latest = max(self._latest, now)

    def read(self) -> Reading:
        progress = self._progress
        seconds = self._latest - self._began if self._began is not None else 0.0
        left = _left(progress.done, progress.total, seconds)
        return Reading(progress.stage, progress.unit, progress.done, progress.total, seconds, left, progress.details)


def _at_work(progress: Progress) -> bool:
    return bool(progress.done or progress.details.get("running") or progress.details.get("records"))


def _left(done: float, total: float | None, seconds: float) -> float | None:
    if not total or done >= total or done / total <= LEAST_SHARE or seconds <= LEAST_SECONDS:
        return None
    return seconds * (total - done) / done
