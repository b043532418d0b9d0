"""The handle on a detached run, in whichever process: all it knows is read from the run's folder."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from paibook import stop_requests
from paibook.detached import outcome
from paibook.detached.outcome import Outcome
from paibook.errors import PaibookError, RunError
from paibook.history import RunHistory
from paibook.metrics import MetricStream
from paibook.plan import Plan
from paibook.run import RunRecord, read_output
from paibook.settings import settings

POLL_SECONDS = 0.1
LOG = "host.log"  # in the run's folder, what its host process printed


class DetachedRun:
    """A run that another process carries out; awaitable, as a ``Run`` is.

    Args:
        run_id: Its id, or a unique end or beginning of it.
        history: Where runs are kept; the user's own history by default.

    Raises:
        PaibookError: No run, or several, are called so, or it was not detached.
    """

    def __init__(self, run_id: str, history: RunHistory | None = None) -> None:
        self._history = history or RunHistory(settings().runs)
        found = self._history.find(run_id)
        if not found.detached:
            raise PaibookError(
                f"run {found.id} was not begun with --detach: its result is in the notebook that ran it only"
            )
        self.id = found.id
        self.plan: Plan = self._history.plan(found.id)
        # Bytes of each pushed variable; known where the run was begun.
        self.pushed: dict[str, int] = {}

    @property
    def directory(self) -> Path:
        """The run's folder."""
        return self._history.directory(self.id)

    @property
    def record(self) -> RunRecord:
        """What ``run.json`` says now; a run whose host process was killed shows as failed."""
        return self._history.record(self.id)

    @property
    def state(self) -> str:
        """``running``, ``done``, ``failed`` or ``cancelled``."""
        return self.record.state

    def done(self) -> bool:
        """Whether it has ended and its result can be had."""
        return outcome.is_there(self.directory) or not self._history.is_carried_out(self.id)

    def wait(self, timeout: float | None = None) -> str:
        """Wait for its end, however it ends; returns its state.

        Raises:
            TimeoutError: It is still running after ``timeout`` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.done():
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"run {self.id} is still running after {timeout:g} s")
            time.sleep(POLL_SECONDS)
        return self.state

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the result, or raise what went wrong.

        Raises:
            UserCodeError: The cell's code raised.
            RunCancelled: It was stopped.
            RunError: The cluster failed it, it took longer than the plan allows, or its host process was killed.
            TimeoutError: It is still running after ``timeout`` seconds.
            PaibookError: The result cannot be read here, or safely.
        """
        ended = self._outcome(timeout)
        if ended.error is not None:
            raise ended.error
        return ended.result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end; what ``result`` would raise, or None."""
        return self._outcome(timeout).error

    def cancel(self) -> None:
        """Ask its host process to stop it. Returns at once; does nothing where it has ended."""
        if not self.done():
            stop_requests.ask(self.directory)

    def add_done_callback(self, callback: Callable[[DetachedRun], None]) -> None:
        """Call ``callback(run)`` when it ends, from a background thread."""

        def wait() -> None:
            self.wait()
            callback(self)

        threading.Thread(target=wait, name=f"paibook-wait-{self.id}", daemon=True).start()

    def __await__(self) -> Generator[Any, None, Any]:
        return self._awaited().__await__()

    async def _awaited(self) -> Any:
        while not self.done():
            await asyncio.sleep(POLL_SECONDS)
        return self.result()

    @property
    def metrics(self) -> MetricStream:
        """What it has logged so far, read anew."""
        return MetricStream.load(self.directory / "metrics.jsonl")

    @property
    def summary(self) -> dict[str, Any] | None:
        """What there is to say of it at its end."""
        return self._history.summary(self.id)

    @property
    def stdout(self) -> str:
        """Everything printed so far, each line led by its rank."""
        return read_output(self.directory, "stdout")

    @property
    def stderr(self) -> str:
        """The same for standard error."""
        return read_output(self.directory, "stderr")

    def __repr__(self) -> str:
        record = self.record
        seconds = (record.ended or time.time()) - record.started
        return f"<DetachedRun {self.id}: {self.plan.runtime}, {record.state}, {seconds:.1f} s, process {record.pid}>"

    def _outcome(self, timeout: float | None) -> Outcome:
        self.wait(timeout)
        if outcome.is_there(self.directory):
            return outcome.load(self.directory)
        record = self.record
        why = "its result could not be kept" if record.state == "done" else record.error
        return Outcome(error=RunError(f"run {self.id}: {why}{last_words(self.directory)}"))


def last_words(directory: Path) -> str:
    """The last line that a host process printed, led by a colon; empty where it said nothing."""
    path = directory / LOG
    lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return f": {lines[-1]}" if lines else ""
