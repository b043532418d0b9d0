"""The one decision to stop: ``--until``, and the cell's own ``should_stop(status)``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from paibook.runtimes.ps.until import Until


@dataclass(frozen=True)
class Status:
    """How far a run is, as ``should_stop`` is told.

    Attributes:
        epoch: Clocks that every worker has finished.
        seconds: Since training began.
        metrics: Name to the mean over workers of what each logged last.
    """

    epoch: int
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def clock(self) -> int:
        """The same as ``epoch``."""
        return self.epoch


class StopRule:
    """Decides, once for each clock that all workers have finished.

    Args:
        until: The stop condition, if any.
        should_stop: The cell's function, if it has one.
        best: By what ``since_best`` is asked of: the least value so far, and its clock.
        improved: Called with each new one: of what, the value, the clock.
    """

    def __init__(
        self,
        until: Until | None = None,
        should_stop: Callable[[Status], Any] | None = None,
        best: Mapping[str, tuple[float, int]] = MappingProxyType({}),
        improved: Callable[[str, float, int], None] = lambda of, value, clock: None,
    ) -> None:
        self._until = until
        self._should_stop = should_stop
        self._best = dict(best)
        self._improved = improved

    def reason(self, status: Status) -> str | None:
        """Why to stop now; None where training goes on. Raises whatever ``should_stop`` raises."""
        return self._by_condition(status) or self._by_function(status)

    def _by_condition(self, status: Status) -> str | None:
        if self._until is None:
            return None
        values = {**status.metrics, "epoch": status.epoch, "clock": status.clock, "seconds": status.seconds}
        values.update(self._since_best(self._until, status.epoch, values))
        return f"--until {self._until.describe(values)}" if self._until.holds(values) else None

    def _since_best(self, until: Until, epoch: int, values: Mapping[str, float]) -> dict[str, float]:
        since: dict[str, float] = {}
        for call in until.improvements:
            value = call.number(values)
            if value is not None and not math.isnan(value) and value < self._best.get(call.text, (math.inf, 0))[0]:
                self._best[call.text] = (value, epoch)
                self._improved(call.text, value, epoch)
            if call.text in self._best:
                since[call.text] = epoch - self._best[call.text][1]
        return since

    def _by_function(self, status: Status) -> str | None:
        answer = None if self._should_stop is None else self._should_stop(status)
        if not answer:
            return None
        return answer if isinstance(answer, str) else f"should_stop(status) at clock {status.clock}"
