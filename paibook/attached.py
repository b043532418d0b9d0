"""A run that another process drives, followed from its folder: a job's, another notebook's, or one that has ended."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from paibook import stop_requests
from paibook.clusters.contract import Event
from paibook.errors import PaibookError, RunCancelled, RunError
from paibook.followed_metrics import FollowedStream
from paibook.line_tail import LineTail
from paibook.pictures import PICTURES, PictureLog
from paibook.plan import Plan
from paibook.progress_log import ProgressTail
from paibook.run import RunHandle, RunRecord
from paibook.runtimes.contract import SUMMARY, Progress

LOOK_SECONDS = 0.1
SHOWN = ("stdout", "stderr", "display", "result")


class AttachedRun(RunHandle):
    """The handle of a run that is followed from its folder; awaitable.

    It shows what the run log holds: what was logged and printed before is read first. It ends when the run does, and
    has no result, which stays with the process that drives the run. A thread looks ten times a second until then, or
    until ``detach``.

    Args:
        read: Reads the run's record as it stands.
        plan: What it carries out.
        directory: The run's own folder.
        on_event, on_progress: Called from a background thread.
    """

    def __init__(
        self,
        read: Callable[[], RunRecord],
        plan: Plan,
        directory: Path,
        on_event: Callable[[Event], None] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._read = read
        self.record = read()
        self.plan = plan
        self.directory = directory
        self.metrics: FollowedStream = FollowedStream(self.record.id, directory / "metrics.jsonl")
        self.summary: dict[str, Any] | None = None
        self.unsaved = ""
        self._on_event = on_event or (lambda event: None)
        self._output = LineTail(directory / "output.jsonl")
        self._on_progress = on_progress or (lambda progress: None)
        self._progress = ProgressTail(directory, self._take_progress)
        self._future: Future[None] = Future()
        self._left = threading.Event()
        threading.Thread(target=self._follow, name=f"paibook-attached-{self.id}", daemon=True).start()

    def done(self) -> bool:
        """Whether it has ended and all of its log is read."""
        return self._future.done()

    def result(self, timeout: float | None = None) -> None:
        """Wait for its end.

        Raises:
            RunCancelled: It was stopped.
            RunError: It failed; the first line of why.
            PaibookError: It was detached from before it ended.
            TimeoutError: It is still running after ``timeout`` seconds.
        """
        self._future.result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end; what ``result`` would raise, or None."""
        return self._future.exception(timeout)

    def add_done_callback(self, callback: Callable[[AttachedRun], None]) -> None:
        """Call ``callback(run)`` when it ends, from a background thread; at once when it already has."""
        self._future.add_done_callback(lambda _future: callback(self))

    def __await__(self) -> Generator[Any, None, None]:
        return asyncio.shield(asyncio.wrap_future(self._future)).__await__()

    def detach(self) -> None:
        """Follow it no longer; the run itself goes on."""
        self._left.set()

    def cancel(self) -> None:
        """Ask the process that drives it to stop it. Returns at once; does nothing where it has ended.

        Raises:
            PaibookError: Its folder is gone, or another user's.
        """
        if not self.done():
            stop_requests.ask(self.directory)

    @property
    def pictures(self) -> PictureLog:
        """The pictures kept so far, read anew."""
        return PictureLog(self.directory / PICTURES)

    def _follow(self) -> None:
        try:
            while not self._left.is_set():
                # The state first: what was written before the end is then read after it.
                record = self._read()
                self._take_all()
                if record.state != "running":
                    self._end(record)
                    return
                self._left.wait(LOOK_SECONDS)
        # Its folder was taken away, or holds what no run wrote; whoever waits must not wait for ever.
        except (OSError, PaibookError, ValueError, TypeError, LookupError) as error:
            self._future.set_exception(PaibookError(f"run {self.id} can no longer be followed: {error}"))
            return
        self._future.set_exception(PaibookError(f"run {self.id} is followed no longer; it was running"))

    def _take_all(self) -> None:
        while self.metrics.read() and not self._left.is_set():
            pass
        while (lines := self._output.read()) and not self._left.is_set():
            for line in lines:
                self._take_output(line)
        self._progress.read()

    def _take_output(self, line: str) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            return  # cut short by a crash
        if entry["kind"] == "note":
            self.unsaved = entry["text"]
        elif entry["kind"] in SHOWN:
            is_stream = entry["kind"] in ("stdout", "stderr")
            data = entry["text"] if is_stream else {"text/plain": entry["text"]}
            self._on_event(Event(entry["kind"], entry["source"], entry["rank"], data))

    def _take_progress(self, progress: Progress) -> None:
        if progress.stage != "start":  # its cluster has started before anybody looked on
            self._on_progress(progress)

    def _end(self, record: RunRecord) -> None:
        try:
            self.summary = json.loads((self.directory / SUMMARY).read_text())
        except (OSError, ValueError):
            self.summary = None
        self.record = record
        if record.state == "done":
            self._future.set_result(None)
        elif record.state == "cancelled":
            self._future.set_exception(RunCancelled(record.error or "the run was stopped"))
        else:
            self._future.set_exception(RunError(f"run {record.id} failed: {record.error}"))
