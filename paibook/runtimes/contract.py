"""What a programming model's driver is to the session."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from paibook.clusters.contract import Cluster, OnEvent
from paibook.errors import RunCancelled
from paibook.metrics import MetricStream
from paibook.plan import Plan

SUMMARY = "summary.json"  # in a run's folder, what ``RunContext.summarise`` was given


@dataclass(frozen=True)
class Progress:
    """How far one stage has come: ``done`` of ``total`` (None: unknown) in ``unit``.

    Attributes:
        details: Further numbers: records, bytes, running, retried, backups, spills, spilled_bytes.
        counters: The program's own.
        picture: How the run stands in all its parts, JSON-able, for whoever draws it; ``model`` names the programming
            model, which says what else there is.
    """

    stage: str
    done: float
    total: float | None
    unit: str = "tasks"
    details: Mapping[str, float] = field(default_factory=dict)
    counters: Mapping[str, int] = field(default_factory=dict)
    picture: Mapping[str, Any] | None = None


@dataclass
class RunContext:
    """What a driver needs beside the plan and the cluster; made and owned by the session's run.

    Attributes:
        run: The run's identifier.
        directory: The run's own folder, on the notebook's machine.
        variables: Values of ``plan.push`` and of inputs named in the options, by name.
        emit: Passes an event on to the notebook and the run log.
        progress: Reports a stage's progress.
        metrics: The run's stream; metric events are appended to it by ``emit`` already.
        resumed: Whether an earlier process began the run; what it finished lies in ``directory``.
        summarise: Takes what there is to say of the run at its end, JSON-able.
    """

    run: str
    directory: Path
    variables: Mapping[str, Any]
    emit: OnEvent
    progress: Callable[[Progress], None]
    metrics: MetricStream
    resumed: bool = False
    summarise: Callable[[dict[str, Any]], None] = lambda summary: None
    _cancelled: threading.Event = field(default_factory=threading.Event)
    _on_cancel: list[Callable[[], None]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def cancelled(self) -> bool:
        """Whether the user asked to stop."""
        return self._cancelled.is_set()

    def on_cancel(self, action: Callable[[], None]) -> None:
        """Call ``action`` once when the run is cancelled; at once when it already is."""
        with self._lock:
            if not self._cancelled.is_set():
                self._on_cancel.append(action)
                return
        action()

    def cancel(self) -> None:
        """Ask the run to stop: runs the registered actions, the latest first. Later calls do nothing."""
        with self._lock:
            if self._cancelled.is_set():
                return
            self._cancelled.set()
            actions = list(reversed(self._on_cancel))
        for action in actions:
            action()

    def check_cancelled(self) -> None:
        """Raise ``RunCancelled`` when the user asked to stop."""
        if self.cancelled:
            raise RunCancelled("the run was stopped")


class Driver(Protocol):
    """One programming model, as driven from the notebook's process."""

    @abstractmethod
    def check(self, plan: Plan) -> None:
        """Refuse a plan that cannot work, before any process is started or asked.

        Raises:
            ProgramError, PlanError, DataError, SyntaxError: Naming what is wrong.
        """

    @abstractmethod
    def check_resume(self, plan: Plan, directory: Path) -> None:
        """Refuse to go on with a run of which not enough is left in its folder.

        Raises:
            PlanError: What is missing.
        """

    @abstractmethod
    def run(self, plan: Plan, cluster: Cluster, context: RunContext) -> Any:
        """Run the plan to its end and return its result; blocks. Raises what the user should see."""
