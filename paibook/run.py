"""A run: one plan being carried out, and the handle a notebook holds on it."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import threading
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from paibook import stop_requests
from paibook.clusters.contract import Cluster, Event
from paibook.errors import PaibookError, RunCancelled, RunError, UserCodeError
from paibook.metrics import MetricStream, Recorder, recording
from paibook.pictures import PICTURES, PictureLog
from paibook.plan import Plan
from paibook.program import error_text
from paibook.progress_log import ProgressLog
from paibook.runtimes.contract import SUMMARY, Driver, Progress, RunContext

GRACE_SECONDS = 2.0
SAVED_BYTES = 50_000_000
STATES = ("running", "done", "failed", "cancelled")


@dataclass(frozen=True)
class RunRecord:
    """What is kept of a run in its folder, as ``run.json``.

    Attributes:
        id: Sorts by time of start.
        name, runtime, cluster: From the plan.
        state: One of ``running``, ``done``, ``failed``, ``cancelled``.
        started, ended: Seconds since the epoch; ``ended`` is None while it runs.
        error: First line of what went wrong, or empty.
        pid: The process that drives it: the notebook's, or its host's where it is detached.
        detached: Whether a host process of its own carries it out.
        job: The run of a job whose notebook it belongs to, or empty.
    """

    id: str
    name: str
    runtime: str
    cluster: str
    state: str
    started: float
    ended: float | None = None
    error: str = ""
    pid: int = 0
    job: str = ""
    detached: bool = False

    @classmethod
    def load(cls, directory: Path) -> RunRecord | None:
        """The record in a folder; None where there is no run, or one that is just being made."""
        try:
            return cls(**json.loads((directory / "run.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def save(self, directory: Path) -> None:
        """Replace the record on disk at once, so that a reader never sees half of it."""
        temporary = directory / "run.json.new"
        temporary.write_text(json.dumps(asdict(self), indent=2))
        temporary.replace(directory / "run.json")


class RunHandle:
    """What the handles of a run have in common, whoever drives it: what it printed, and its metrics and pictures shown.

    Attributes:
        record: As it stands.
        plan: What it carries out.
        directory: Its own folder.
        metrics: What it has logged so far.
    """

    record: RunRecord
    plan: Plan
    directory: Path
    metrics: MetricStream

    @property
    def id(self) -> str:
        """Identifier, and name of the run's folder."""
        return self.record.id

    @property
    def state(self) -> str:
        """``running``, ``done``, ``failed`` or ``cancelled``."""
        return self.record.state

    @property
    def stdout(self) -> str:
        """Everything printed so far, each line led by its rank."""
        return read_output(self.directory, "stdout")

    @property
    def stderr(self) -> str:
        """The same for standard error."""
        return read_output(self.directory, "stderr")

    def plot(self, **view: Any) -> Any:
        """Draw the metrics: live while it runs, then as a picture whose ``.widget()`` can be looked into.

        Args:
            **view: How live curves are to be looked at first: ``axis="time"``, ``log=True``, ``smoothing=0.6``, ...

        Raises:
            PaibookError: There is no notebook to draw in.
        """
        if Run.plotter is None:
            raise PaibookError("nothing here can draw: call run.plot() in a notebook after `%load_ext paibook`")
        return Run.plotter(self, **view)

    def explain(self) -> Any:
        """Look at the run's pictures beside its code: live while it runs, paused, step by step, or all of it again.

        Raises:
            PaibookError: There is no notebook to draw in.
        """
        if Run.explainer is None:
            raise PaibookError("nothing here can draw: call run.explain() in a notebook after `%load_ext paibook`")
        return Run.explainer(self)

    def figure(self, **options: Any) -> Any:
        """The metrics as a matplotlib figure, for papers; see ``paibook.widgets.paper.figure`` for the options.

        Raises:
            PaibookError: matplotlib is not installed, or nothing was logged under a name asked for.
        """
        return figure_of(self, options)

    def note(self, text: str) -> Any:
        """Write something down beside the step it has come to; shown with its curves.

        Raises:
            ValueError: There is no text.
        """
        return self.metrics.note(text)

    def __repr__(self) -> str:
        seconds = (self.record.ended or time.time()) - self.record.started
        logged = f", metrics: {', '.join(self.metrics.names)}" if len(self.metrics) else ""
        return f"<{type(self).__name__} {self.id}: {self.plan.runtime}, {self.state}, {seconds:.1f} s{logged}>"


class Run(RunHandle):
    """A plan being carried out in a background thread; awaitable.

    Args:
        record: As at the start; saved at once and at the end.
        directory: The run's own folder: ``plan.json``, ``run.json``, ``metrics.jsonl``, ``output.jsonl``,
            ``pictures.jsonl``.
        variables: Values for the driver, by name.
        on_event, on_progress: Called from background threads.
        resumed: Whether an earlier process began it.
    """

    # How a front end draws the run's metrics; the notebook surface sets it, since it knows what can be shown.
    plotter: ClassVar[Callable[..., Any] | None] = None
    # The same for its pictures.
    explainer: ClassVar[Callable[..., Any] | None] = None

    def __init__(
        self,
        record: RunRecord,
        plan: Plan,
        directory: Path,
        variables: Mapping[str, Any],
        on_event: Callable[[Event], None] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        resumed: bool = False,
    ) -> None:
        self.record = record
        self.plan = plan
        self.directory = directory
        self.metrics = MetricStream(record.id, directory / "metrics.jsonl")
        self.pictures = PictureLog(directory / PICTURES)
        self._on_event = on_event
        self._on_progress = on_progress or (lambda progress: None)
        self._progress_log = ProgressLog(directory)
        self._future: Future[Any] = Future()
        self._timed_out = False
        # Bytes of each pushed variable.
        self.pushed: dict[str, int] = {}
        self._output_lock = threading.Lock()
        self._unsaved = ""
        self._saved = 0
        self._summary: dict[str, Any] | None = None
        self._context = RunContext(
            record.id, directory, variables, self._emit, self._report, self.metrics, resumed, self._summarise
        )
        self._ended = threading.Event()
        stop_requests.withdraw(directory)
        (directory / "plan.json").write_text(plan.to_json())
        record.save(directory)

    def start(self, driver: Driver, cluster: Cluster) -> Run:
        """Begin in a thread of its own; returns at once."""
        stop_requests.watch(self.directory, self._ended, self._context.cancel)
        threading.Thread(target=self._drive, args=(driver, cluster), name=f"paibook-{self.id}", daemon=True).start()
        return self

    @property
    def summary(self) -> dict[str, Any] | None:
        """What there is to say of it at its end: stages, counters, largest keys; None for models that say nothing."""
        return self._summary

    def done(self) -> bool:
        """Whether it has ended, one way or another."""
        return self._future.done()

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the result, or raise what went wrong.

        Raises:
            UserCodeError: The cell's code raised; on the inline cluster, the user's own exception instead.
            RunCancelled: It was stopped.
            RunError: The cluster failed it, or it took longer than the plan allows.
            TimeoutError: It is still running after ``timeout`` seconds.
        """
        return self._future.result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end; what ``result`` would raise, or None."""
        return self._future.exception(timeout)

    def cancel(self) -> None:
        """Stop it: ranks are interrupted and keep their variables, tasks are dropped. Returns at once."""
        # Cancelling talks to the cluster; the caller may be the event loop that everybody shares.
        threading.Thread(target=self._context.cancel, name=f"paibook-cancel-{self.id}", daemon=True).start()

    def add_done_callback(self, callback: Callable[[Run], None]) -> None:
        """Call ``callback(run)`` when it ends, from a background thread; at once when it already has."""
        self._future.add_done_callback(lambda _future: callback(self))

    def __await__(self) -> Generator[Any, None, Any]:
        return asyncio.shield(asyncio.wrap_future(self._future)).__await__()

    @property
    def unsaved(self) -> str:
        """Why the run's log stopped being written (a full disk, a folder taken away), or empty."""
        return "; ".join(reason for reason in (self._unsaved, self.metrics.unsaved, self.pictures.unsaved) if reason)

    def _drive(self, driver: Driver, cluster: Cluster) -> None:
        alarm = None
        if self.plan.timeout is not None:
            # Drivers keep the time themselves where they can say more; this is for when they cannot.
            alarm = threading.Timer(self.plan.timeout + GRACE_SECONDS, self._time_out)
            alarm.daemon = True
            alarm.start()
        recorder = Recorder(lambda batch: self._emit(Event("metric", "driver", -1, batch)))
        try:
            with recording(recorder):
                self._start(cluster)
                result = driver.run(self.plan, cluster, self._context)
        except BaseException as error:
            self._fail(error, cluster)
        else:
            self._end("done")
            self._future.set_result(result)
        finally:
            self._ended.set()
            if alarm is not None:
                alarm.cancel()
            self._context.variables = {}  # the session keeps its runs, and must not keep what was sent with them

    def _start(self, cluster: Cluster) -> None:
        began = time.monotonic()
        self._report(Progress("start", 0, None, cluster.reference))
        cluster.start()
        asked = self.plan.resources.workers
        if self.plan.runtime == "mapreduce" and asked > cluster.tasks().slots:
            cluster.scale(asked)
        self._report(Progress("start", time.monotonic() - began, None, cluster.reference))

    def _report(self, progress: Progress) -> None:
        self._progress_log.take(progress)
        if progress.picture is not None:
            self.pictures.add(progress.picture)
        self._on_progress(progress)

    def _fail(self, error: BaseException, cluster: Cluster) -> None:
        if self._timed_out:
            error = RunError(f"the run was stopped after its timeout of {self.plan.timeout:g} s")
        elif isinstance(error, KeyboardInterrupt):
            error = RunCancelled("the run was stopped")
        elif (
            isinstance(error, UserCodeError) and cluster.reference == "inline" and isinstance(error.original, Exception)
        ):
            error = error.original
        elif not isinstance(error, Exception):
            # Waiting for a run must not end the notebook: an event loop takes SystemExit as its own end.
            error = RunError(f"the run was ended by {type(error).__name__}: {error}")
        cancelled = isinstance(error, RunCancelled)
        first_line = (error_text(error).strip() or type(error).__name__).splitlines()[0]
        self._end("cancelled" if cancelled else "failed", first_line)
        self._future.set_exception(error)

    def _summarise(self, summary: dict[str, Any]) -> None:
        self._summary = summary
        (self.directory / SUMMARY).write_text(json.dumps(summary, indent=2))

    def _time_out(self) -> None:
        self._timed_out = True
        self._context.cancel()

    def _end(self, state: str, error: str = "") -> None:
        self._progress_log.close()
        self.pictures.close()
        self.record = replace(self.record, state=state, ended=time.time(), error=error)
        try:
            self.record.save(self.directory)
        except OSError as error:  # the folder is gone or full; whoever waits for the run must not wait for ever
            logging.getLogger(__name__).warning("the end of run %s is not in the history: %s", self.id, error)

    def _emit(self, event: Event) -> None:
        if event.kind == "metric":
            assert isinstance(event.data, list)
            self.metrics.append(event.data)
        elif event.data != "":
            self._log_output(event)
        if self._on_event is not None:
            self._on_event(event)

    def _log_output(self, event: Event) -> None:
        data = event.data if isinstance(event.data, str) else event.data.get("text/plain", "")  # type: ignore[union-attr]
        entry = {"kind": event.kind, "source": event.source, "rank": event.rank, "text": data, "time": time.time()}
        line = json.dumps(entry) + "\n"
        with self._output_lock:
            if self._unsaved:
                return
            self._saved += len(line)
            if self._saved > SAVED_BYTES:
                self._unsaved = f"output beyond {SAVED_BYTES / 1e6:g} MB is not saved"
                line = json.dumps({**entry, "kind": "note", "text": self._unsaved}) + "\n"
            try:
                with (self.directory / "output.jsonl").open("a") as file:
                    file.write(line)
            except OSError as error:
                self._unsaved = f"output is no longer saved: {error}"


def figure_of(run: Any, options: Mapping[str, Any]) -> Any:
    """A run's metrics as a matplotlib figure."""
    paper = importlib.import_module("paibook.widgets.paper")  # a floor above, as a notebook's surface is
    return paper.figure({run.plan.name or run.id: run.metrics}, **options)


def read_output(directory: Path, kind: str) -> str:
    """What a run's processes printed, each line led by who printed it; a note ends what was too much to save."""
    path = directory / "output.jsonl"
    texts: dict[tuple[str, int], list[str]] = {}
    notes = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # the last line, cut short by a crash
        if entry["kind"] == kind:
            texts.setdefault((entry["source"], entry["rank"]), []).append(entry["text"])
        elif entry["kind"] == "note":
            notes.append(f"[{entry['text']}]\n")
    lines = (
        f"[{source} {rank}] {line}\n"
        for (source, rank), parts in sorted(texts.items())
        for line in "".join(parts).splitlines()
    )
    return "".join([*lines, *notes])
