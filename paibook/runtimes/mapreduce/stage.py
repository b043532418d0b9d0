"""A stage: tasks that run side by side, counted as they finish."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from paibook.clusters.contract import Pending, Tasks
from paibook.errors import RunCancelled
from paibook.runtimes.contract import Progress, RunContext


class Stages:
    """Every task of one run: submits, reports progress, stops at the first failure, and forgets all at the end.

    Args:
        tasks: The cluster's.
        context: The run's; its cancellation releases the tasks.
    """

    def __init__(self, tasks: Tasks, context: RunContext) -> None:
        self._tasks = tasks
        self._context = context
        self._pending: list[Pending[Any]] = []
        self._watched: list[Pending[Any]] = []
        self._finished: queue.SimpleQueue[Pending[Any] | None] = queue.SimpleQueue()
        self._done: dict[str, int] = {}
        self._totals: dict[str, int] = {}
        self._lock = threading.Lock()
        context.on_cancel(self._cancel)

    def announce(self, stage: str, total: int) -> None:
        """Say how many tasks a stage will have."""
        self._totals[stage] = total
        self._done[stage] = 0
        self._context.progress(Progress(stage, 0, total))

    def submit(self, function: Callable[..., Any], *args: Any, label: str, number: int) -> Pending[Any]:
        """Submit a task; those of an announced stage are watched."""
        self._context.check_cancelled()
        on_event = self._context.emit if label in self._totals else None
        pending = self._tasks.submit(function, *args, label=label, number=number, on_event=on_event)
        self._pending.append(pending)
        if pending.done() and (error := pending.exception()) is not None:
            raise error
        if label in self._totals:
            self._watched.append(pending)
            pending.add_done_callback(lambda _done: self._count(label, pending))
        return pending

    def wait(self) -> None:
        """Wait for the watched tasks.

        Raises:
            Exception: The first failure's.
            RunCancelled: The run was stopped.
        """
        for _ in range(len(self._watched)):
            pending = self._finished.get()
            if pending is None or self._context.cancelled:
                raise RunCancelled("the run was stopped")
            error = pending.exception()
            if error is not None:
                raise error
        self._watched = []

    def release(self) -> None:
        """Cancel what runs and forget every result."""
        self._tasks.release(self._pending)
        self._pending = []

    def _count(self, label: str, pending: Pending[Any]) -> None:
        with self._lock:
            self._done[label] += 1
            done = self._done[label]
            if not self._context.cancelled:
                self._context.progress(Progress(label, done, self._totals[label]))
        self._finished.put(pending)

    def _cancel(self) -> None:
        self._finished.put(None)
