"""The panel of scheduled jobs: when each runs next, how its runs went, and the curve of the one that runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat

from paibook.errors import PaibookError
from paibook.followed_metrics import FollowedStream
from paibook.history import RunHistory
from paibook.jobs import actions
from paibook.jobs.attempt import SOURCE
from paibook.jobs.job import Job
from paibook.jobs.records import DONE, ENDED, QUEUED, RUNNING, JobRun
from paibook.jobs.scheduler import drain
from paibook.jobs.store import JobStore
from paibook.run import RunRecord
from paibook.widgets.live_panel import EXPECTED, STATIC, LivePanel, table_bundle
from paibook.widgets.runs import course, cut_log, sparkline

JOB_COLUMNS = ("job", "notebook", "runs", "next", "latest")
RUN_COLUMNS = ("run", "job", "state", "started", "seconds", "cell", "curve", "error")
LATEST = 6  # runs of a job that are shown beside it
UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


class JobsPanel(LivePanel):
    """The jobs of a store, and its latest runs.

    Args:
        store: Of the jobs.
        history: Where the runs that jobs' notebooks start are kept.
        count: How many runs.
    """

    _esm = STATIC / "jobs.js"

    def __init__(self, store: JobStore, history: RunHistory, count: int = 12) -> None:
        self._store = store
        self._history = history
        self._count = count
        self._curves = JobCurves(history)
        self._cells: dict[str, int] = {}
        self._log = ""
        self._failed = ""  # of what a button began and no answer waited for
        super().__init__()

    def look(self) -> dict[str, Any]:
        jobs = self._store.jobs()
        runs = self._store.runs(most=self._count)
        kept = {job.name for job in jobs}
        started = [run.started for run in runs if run.started]
        records = self._history.of_jobs(min(started)) if started else {}
        if self._log not in {run.id for run in runs}:
            self._log = ""
        state = {
            "jobs": [self._job(job) for job in jobs],
            "runs": [self._run(run, run.job.name in kept, records.get(run.id)) for run in runs],
            "log": {"id": self._log, "text": cut_log(actions.logs(self._store, self._log))} if self._log else {},
        }
        if self._failed:
            failed, self._failed = self._failed, ""
            raise PaibookError(failed)
        return state

    def act(self, kind: str, content: dict[str, Any]) -> None:
        target = str(content.get("id", ""))
        match kind:
            case "log":
                self._log = "" if self._log == target else self._store.run(target).id
            case "stop":
                # It takes as long as the notebook's processes do; the panel goes on answering.
                self._begin(lambda: actions.stop(self._store, target))
            case "rerun":
                made = actions.rerun(self._store, self._store.run(target).id)
                self._begin(lambda: drain(self._store, [made]))
            case "run":
                queued = actions.queue(self._store, self._store.job(target))
                self._begin(lambda: drain(self._store, queued))

    def static(self) -> dict[str, str]:
        jobs = [
            (job["name"], job["notebook"], job["when"], job["next"], job["runs"][-1]["state"] if job["runs"] else "")
            for job in self.state["jobs"]
        ]
        runs = [
            (
                run["id"],
                run["job"],
                run["state"],
                run["started"],
                f"{run['seconds']:.1f}" if run["started"] else "",
                run["cell"],
                sparkline(run["curve"]),
                run["error"],
            )
            for run in self.state["runs"]
        ]
        parts = [
            table_bundle(f"{len(jobs)} job{'s' * (len(jobs) != 1)}", JOB_COLUMNS, jobs),
            table_bundle(f"{len(runs)} run{'s' * (len(runs) != 1)}", RUN_COLUMNS, runs),
        ]
        return {kind: "\n".join(part[kind] for part in parts) for kind in parts[0]}

    def _begin(self, work: Callable[[], Any]) -> None:
        def carry_out() -> None:
            try:
                work()
            except EXPECTED as error:
                self._failed = str(error)

        threading.Thread(target=carry_out, name="paibook-job", daemon=True).start()

    def _job(self, job: Job) -> dict[str, Any]:
        latest = self._store.runs(job.name, most=LATEST)
        moment, left = next_time(job, time.time())
        return {
            "name": job.name,
            "notebook": Path(job.notebook).name,
            "when": when(job),
            "next": moment,
            "left": left,
            "runs": [{"id": run.id, "state": _state(run), "error": run.error} for run in reversed(latest)],
        }

    def _run(self, run: JobRun, is_kept: bool, record: RunRecord | None) -> dict[str, Any]:
        metric, curve = self._curves.of(run, record)
        return {
            "id": run.id,
            # What was run by hand or from JupyterLab's dialog has a made-up name.
            "job": run.job.name if is_kept else Path(run.job.notebook).stem,
            "state": _state(run),
            "started": _local(run.started) if run.started else "",
            "seconds": round((run.ended or time.time()) - run.started, 1) if run.started else 0.0,
            "cell": self._cell(run),
            "attempt": run.attempt,
            "metric": metric,
            "curve": curve,
            "followed": record.id if record is not None else "",
            "error": run.error,
            "can_stop": run.state in (QUEUED, RUNNING) and not run.stop,
            "can_rerun": run.state in ENDED,
        }

    def _cell(self, run: JobRun) -> str:
        """How far the notebook is, or was when it failed: ``3 of 7``."""
        if run.cell < 0 or run.state == DONE:
            return ""
        if run.id not in self._cells:
            try:
                self._cells[run.id] = len(nbformat.read(self._store.folder(run.id) / SOURCE, as_version=4).cells)
            except (OSError, ValueError):
                return str(run.cell + 1)
        return f"{run.cell + 1} of {self._cells[run.id]}"


class JobCurves:
    """The first metric of the runs that jobs' notebooks start, read as they grow.

    Args:
        history: Of those runs.
    """

    def __init__(self, history: RunHistory) -> None:
        self._history = history
        self._streams: dict[str, FollowedStream] = {}
        self._ended: dict[str, tuple[str, list[float]]] = {}

    def of(self, run: JobRun, record: RunRecord | None) -> tuple[str, list[float]]:
        """The metric's name and its course; of a run that has ended, read once."""
        if run.id in self._ended:
            return self._ended[run.id]
        if record is None:
            return "", []
        path = self._history.directory(record.id) / "metrics.jsonl"
        stream = self._streams.setdefault(record.id, FollowedStream(record.id, path))
        while stream.read():
            pass
        found = course(stream.columns())
        if run.state in ENDED:
            self._ended[run.id] = found
            self._streams.pop(record.id, None)
        return found


def when(job: Job) -> str:
    """When a job runs, in a few words."""
    if job.cron:
        return f"{job.cron} {job.timezone}"
    if job.at:
        return f"once {job.timezone}"
    if job.after:
        return "after " + ", ".join(dependency.job for dependency in job.after)
    return "when asked"


def next_time(job: Job, now: float) -> tuple[str, str]:
    """The next fire time in the job's time zone, and how long that is from ``now``; empty where there is none.

    >>> next_time(Job("fit", "fit.ipynb", at="2030-01-31T03:00"), 1896055200.0)
    ('2030-01-31 03:00', '1 h')
    """
    for moment in job.next_times(1):
        left = (moment - datetime.fromtimestamp(now, UTC)).total_seconds()
        if left > 0:
            return moment.strftime("%Y-%m-%d %H:%M"), short(left)
    return "", ""


def short(seconds: float) -> str:
    """A span of time in its largest unit.

    >>> short(7300), short(59), short(0.2)
    ('2 h', '59 s', '0 s')
    """
    size, unit = next((one for one in UNITS if seconds >= one[0]), UNITS[-1])
    return f"{int(seconds // size)} {unit}"


def _state(run: JobRun) -> str:
    return "stopping" if run.stop and run.state == RUNNING else run.state


def _local(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
