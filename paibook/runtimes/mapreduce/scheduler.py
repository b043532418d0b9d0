"""The scheduler: the tasks of one stage side by side, a few at a time; attempts, backups of stragglers, progress."""

from __future__ import annotations

import math
import queue
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from paibook.clusters.contract import Event, Pending, Tasks
from paibook.errors import PaibookError, RunCancelled, RunError
from paibook.pictures import Pace
from paibook.runtimes.contract import Progress, RunContext
from paibook.runtimes.mapreduce.checkpoint import Checkpoint
from paibook.runtimes.mapreduce.mistakes import said
from paibook.runtimes.mapreduce.picture import JobPicture
from paibook.runtimes.mapreduce.steps import Done
from paibook.runtimes.mapreduce.worker import described

ATTEMPTS = 4  # of a task whose worker's process ended under it
POLL_SECONDS = 0.25
SLOW = 2.0  # times the median duration, after which a task near the end gets a backup
LEAST_SECONDS = 2.0  # a task younger than this is no straggler
MUTE_SECONDS = 10.0  # after which a task that nobody took up gets a backup
LIVE = ("records_in", "bytes_in", "spills", "spilled_bytes")


@dataclass(frozen=True)
class Call:
    """A task to be run: ``function(number, *args)``.

    Attributes:
        weight: How much work it is, next to the stage's others.
    """

    number: int
    function: Callable[..., Any]
    args: tuple[Any, ...]
    weight: int = 0


@dataclass(eq=False)
class _Attempt:
    call: Call
    pending: Pending[Any]
    began: float | None = None  # when its worker took it up
    submitted: float = field(default_factory=time.monotonic)
    is_backup: bool = False
    done: Done | None = None
    error: BaseException | None = None

    @property
    def is_at_work(self) -> bool:
        """Whether it keeps a slot busy: not while it waits behind another task, or for its result to be fetched."""
        return self.began is not None and not self.pending.done()

    @property
    def since(self) -> float:
        return self.submitted if self.began is None else self.began


@dataclass
class _Stage:
    """A stage as it stands."""

    name: str
    total: int
    waiting: list[Call]
    done: dict[int, Done] = field(default_factory=dict)
    running: dict[int, list[_Attempt]] = field(default_factory=dict)
    failures: Counter[int] = field(default_factory=Counter)
    durations: list[float] = field(default_factory=list)
    live: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    backups: int = 0
    retried: int = 0
    kept: dict[int, Pending[Any]] = field(default_factory=dict)
    totals: Counter[str] = field(default_factory=Counter)  # of ``LIVE``, over the tasks that are done
    counters: Counter[str] = field(default_factory=Counter)

    def add(self, number: int, done: Done) -> None:
        self.done[number] = done
        self.live.pop(number, None)
        self.totals.update({name: getattr(done.report, name) for name in LIVE})
        self.counters.update(done.report.counters)


@dataclass(frozen=True)
class StageResult:
    """What a stage gave.

    Attributes:
        done: Of each task, in order of their numbers.
        kept: The pending results themselves, where their content stays on the workers.
        retried, backups: Attempts beyond the first.
        seconds: From the first submission to the last result.
    """

    done: list[Done]
    kept: list[Pending[Any]]
    retried: int
    backups: int
    seconds: float


class Scheduler:
    """Runs stages one after the other and forgets every task at the end.

    Args:
        tasks: The cluster's.
        context: The run's; its cancellation ends the wait.
        window: Tasks that run at once.
        ahead: Tasks submitted beyond these, so that a worker that is done has its next task at hand.
        backups: Whether a straggler gets a second attempt elsewhere.
        checkpoint: Remembers what has finished.
        picture: Told what happens, and shown with the progress.
    """

    def __init__(
        self,
        tasks: Tasks,
        context: RunContext,
        window: int,
        backups: bool,
        checkpoint: Checkpoint | None,
        ahead: int = 0,
        picture: JobPicture | None = None,
    ) -> None:
        self._tasks = tasks
        self._context = context
        self._window = max(1, window)
        self._ahead = ahead
        self._backups = backups
        self._checkpoint = checkpoint
        self._submitted: list[Pending[Any]] = []
        self._news: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._counters: Counter[str] = Counter()
        self._picture = picture or JobPicture(())
        self._pace = Pace()
        self._is_pictured = True  # nothing has happened since the last picture
        context.on_cancel(lambda: self._news.put(("cancel", None)))

    def submit(self, function: Callable[..., Any], *args: Any, label: str) -> Pending[Any]:
        """Submit a task that belongs to no stage."""
        self._context.check_cancelled()
        pending = self._tasks.submit(function, *args, label=label)
        self._submitted.append(pending)
        return pending

    def run(
        self, name: str, calls: Sequence[Call], stays: bool = False, accept: Callable[[Done], None] | None = None
    ) -> StageResult:
        """Run a stage to its end.

        Args:
            name: Shown, and leads the names of its tasks.
            calls: In order of their numbers.
            stays: Leave the results' content on the workers and bring what describes it.
            accept: Looks at each result as it comes; may raise to end the run.

        Raises:
            RunCancelled: The run was stopped.
            RunError: A task's workers kept dying.
            Exception: What the first task that failed raised.
        """
        began = time.monotonic()
        known = self._checkpoint.finished(name) if self._checkpoint is not None and not stays else {}
        stage = _Stage(name, len(calls), _lightest_first([call for call in calls if call.number not in known]))
        self._picture.begin(name, len(calls))
        for number, done in known.items():
            if accept is not None:
                accept(done)
            stage.add(number, done)
            self._picture.end(number, done.report, done.value)
        self._show(stage, with_picture=True)
        while len(stage.done) < stage.total:
            self._context.check_cancelled()
            self._fill(stage, stays)
            self._take(stage, stays, accept)
        self._show(stage, with_picture=True)
        self._counters.update(stage.counters)
        numbers = [call.number for call in calls]
        return StageResult(
            [stage.done[number] for number in numbers],
            [stage.kept[number] for number in numbers if number in stage.kept],
            stage.retried,
            stage.backups,
            time.monotonic() - began,
        )

    def release(self) -> None:
        """Cancel what runs and forget every result."""
        submitted, self._submitted = self._submitted, []
        self._tasks.release(submitted)

    @property
    def counters(self) -> dict[str, int]:
        """The program's counters over all stages that have ended."""
        return dict(self._counters)

    def _fill(self, stage: _Stage, stays: bool) -> None:
        while stage.waiting and sum(map(len, stage.running.values())) < self._window + self._ahead:
            self._start(stage, stage.waiting.pop(), stays)
        if self._backups and not stage.waiting and not stays:
            for attempt in stragglers(stage.running, stage.durations, time.monotonic(), self._tasks.slots):
                stage.backups += 1
                self._start(stage, attempt.call, stays, is_backup=True)
                self._show(stage)

    def _start(self, stage: _Stage, call: Call, stays: bool, is_backup: bool = False) -> None:
        def on_event(event: Event) -> None:
            if event.kind == "progress":
                self._news.put(("progress", (call.number, attempts, event.data)))
            else:
                self._context.emit(event)

        attempts: list[_Attempt] = []  # filled below: events may come before submit returns
        pending = self._tasks.submit(
            call.function, call.number, *call.args, label=stage.name, number=call.number, on_event=on_event
        )
        self._submitted.append(pending)
        self._picture.submit(call.number, is_backup)
        watched = pending
        if stays:
            stage.kept[call.number] = pending
            watched = self._tasks.submit(described, pending, label=f"{stage.name}-described", number=call.number)
            self._submitted.append(watched)
        attempt = _Attempt(call, watched, is_backup=is_backup)
        attempts.append(attempt)
        stage.running.setdefault(call.number, []).append(attempt)
        where = f"{stage.name} task {call.number}"
        watched.add_done_callback(lambda _pending: self._fetch(attempt, where))

    def _fetch(self, attempt: _Attempt, where: str) -> None:
        """Bring a result here, in a thread: a worker may stop between its word that it is done and the result."""

        def fetch() -> None:
            try:
                attempt.error = attempt.pending.exception()
                if attempt.error is None:
                    attempt.done = attempt.pending.result()
            except PaibookError as error:
                attempt.error = error
            except BaseException as error:  # unsaid, the stage would wait for ever
                reason = f"{type(error).__name__}: {error}"
                attempt.error = said(where, f"its result cannot be fetched: {reason}", "RunError")
            self._news.put(("done", attempt))

        threading.Thread(target=fetch, name="paibook-fetch", daemon=True).start()

    def _take(self, stage: _Stage, stays: bool, accept: Callable[[Done], None] | None) -> None:
        """Wait for news, and take all there is."""
        try:
            kind, news = self._news.get(timeout=POLL_SECONDS)
        except queue.Empty:
            if not self._is_pictured:
                self._show(stage)
            return
        if kind == "cancel":
            raise RunCancelled("the run was stopped")
        if kind == "progress":
            number, attempts, data = news
            for attempt in attempts:
                attempt.began = attempt.began or time.monotonic()
            if number not in stage.done and number in stage.running:
                self._picture.take_up(number)
                if "started" not in data:
                    stage.live[number] = data
                    self._picture.report(number, data)
                self._show(stage)
            return
        if news in stage.running.get(news.call.number, ()):
            self._end(stage, news, stays, accept)

    def _end(self, stage: _Stage, attempt: _Attempt, stays: bool, accept: Callable[[Done], None] | None) -> None:
        number = attempt.call.number
        error = attempt.error
        if isinstance(error, RunError) and not isinstance(error, RunCancelled):
            self._retry(stage, attempt, error, stays)
            return
        if error is not None:
            raise error
        done = attempt.done
        assert done is not None
        if not stays:
            self._tasks.forget(attempt.pending)
        if accept is not None:
            accept(done)
        stage.add(number, done)
        self._picture.end(number, done.report, done.value)
        if attempt.began is not None:
            stage.durations.append(time.monotonic() - attempt.began)
        if self._checkpoint is not None and not stays:
            self._checkpoint.add(stage.name, number, done)
        losers = [other.pending for other in stage.running.pop(number) if other is not attempt]
        if losers:
            # A straggler may be stopped for good: nobody waits until it hears that it lost.
            threading.Thread(target=self._tasks.release, args=(losers,), daemon=True).start()
        self._show(stage)

    def _retry(self, stage: _Stage, attempt: _Attempt, error: RunError, stays: bool) -> None:
        number = attempt.call.number
        stage.failures[number] += 1
        if stage.failures[number] >= ATTEMPTS:
            raise error
        attempts = stage.running[number]
        attempts.remove(attempt)
        stage.retried += 1
        self._picture.lose(number, bool(attempts))
        if not attempts:
            self._start(stage, attempt.call, stays)
        self._show(stage)

    def _show(self, stage: _Stage, with_picture: bool = False) -> None:
        totals, counters = Counter(stage.totals), Counter(self._counters)
        counters.update(stage.counters)
        for live in stage.live.values():
            totals.update({name: live.get(name, 0) for name in LIVE})
            counters.update(live.get("counters", {}))
        details = {name.removesuffix("_in"): float(totals[name]) for name in LIVE}
        details["running"] = float(min(len(stage.running), self._window))
        details["retried"], details["backups"] = float(stage.retried), float(stage.backups)
        self._is_pictured = self._pace.allows(time.monotonic()) or with_picture
        picture = self._picture.draw(counters) if self._is_pictured else None
        self._context.progress(
            Progress(
                stage.name, len(stage.done), stage.total, details=details, counters=dict(counters), picture=picture
            )
        )


def _lightest_first(calls: Sequence[Call]) -> list[Call]:
    """To be taken from the end: the heaviest tasks begin, so that the last ones to end are light.

    Graham, Bounds on Multiprocessing Timing Anomalies, 1969: longest processing time first.
    """
    return sorted(calls, key=lambda call: (call.weight, -call.number))


def stragglers(
    running: Mapping[int, list[_Attempt]], durations: Sequence[float], now: float, slots: int
) -> list[_Attempt]:
    """Attempts that deserve a backup: the slowest near the end of a stage, as many as there are idle slots.

    Dean and Ghemawat, MapReduce: Simplified Data Processing on Large Clusters, 2004, section 3.6.
    """
    idle = slots - sum(attempt.is_at_work for attempts in running.values() for attempt in attempts)
    limit = max(LEAST_SECONDS, SLOW * statistics.median(durations)) if durations else math.inf
    latest = [attempts[-1] for attempts in running.values() if len(attempts) < ATTEMPTS]
    slow = [attempt for attempt in latest if now - attempt.since > _patience(attempt, limit)]
    return sorted(slow, key=lambda attempt: attempt.since)[: max(0, idle)]


def _patience(attempt: _Attempt, limit: float) -> float:
    """Seconds after which an attempt deserves a backup; one that its worker did not even take up does so too, since
    that worker may not answer."""
    if attempt.began is None:
        return MUTE_SECONDS if attempt.is_backup else min(limit, MUTE_SECONDS)
    return math.inf if attempt.is_backup else limit
