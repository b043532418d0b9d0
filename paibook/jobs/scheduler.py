"""The scheduler: makes runs of what is due and starts their processes. Any number may share one store."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice

from paibook.jobs.claims import queue_followers, requeue_lost
from paibook.jobs.job import Job
from paibook.jobs.kernel import end_processes
from paibook.jobs.records import ENDED, QUEUED, RUNNING, SKIPPED, STOPPED
from paibook.jobs.runner import spawn
from paibook.jobs.schedule import fire_times, parse_moment
from paibook.jobs.store import JobStore, insert_run, update_run

TICK_SECONDS = 1.0
MOST_CAUGHT_UP = 100
# Causes of the runs that are the scheduler's to carry out. Of others, who asked for one does; where that one is gone,
# the scheduler does so after a while.
OWN = ("schedule", "after", "dialog")
LEFT_SECONDS = 30.0


def to_run(job: Job, due: Sequence[float], now: float) -> list[float]:
    """Of the fire times that have come, those that get a run, by the job's missed-run policy.

    A fire time is missed when it is more than ``job.grace`` seconds ago.
    """
    if not due:
        return []
    on_time = [moment for moment in due if now - moment <= job.grace]
    if job.missed == "catch-up":
        return list(due)
    return on_time or (list(due[-1:]) if job.missed == "once" else [])


class Scheduler:
    """Looks at the store once a second.

    Args:
        store: Shared with whoever else looks at it.
        most: How many runs it carries out at a time.
    """

    def __init__(self, store: JobStore, most: int = 4) -> None:
        self.store = store
        self._most = most
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stopping = threading.Event()

    def serve(self) -> None:
        """Run what is due until ``stop``; the runs that it started go on."""
        while not self._stopping.is_set():
            try:
                self.tick(time.time())
            except (OSError, sqlite3.Error) as error:  # a full disk, a database locked for long: the next may do
                print(f"nothing was started: {error}", file=sys.stderr, flush=True)
            self._stopping.wait(TICK_SECONDS)

    def stop(self) -> None:
        """End ``serve`` soon; from any thread or a signal's handler."""
        self._stopping.set()

    def tick(self, now: float) -> list[str]:
        """Do what is to be done at ``now``; returns the ids of the runs that it started."""
        for run_id in [r for r, p in list(self._processes.items()) if p.poll() is not None]:
            del self._processes[run_id]
        for run_id in requeue_lost(self.store):
            end_processes(run_id)
        queue_followers(self.store)
        self._make_due(now)
        self._stop_replaced()
        return self._start_queued(now)

    def start(self, run_id: str) -> bool:
        """Start the process of a queued run now; False where as many as may run at a time do, and a tick will."""
        if run_id in self._processes or len(self._processes) >= self._most:
            return False
        self._processes[run_id] = spawn(self.store, run_id)
        return True

    def _make_due(self, now: float) -> None:
        for job in self.store.jobs():
            if not job.cron and not job.at:
                continue
            with self.store.transaction() as db:
                row = db.execute("SELECT scheduled_until FROM pai_jobs WHERE name = ?", (job.name,)).fetchone()
                if row is None or now <= row["scheduled_until"] <= now + job.grace:
                    continue  # another scheduler was here
                # A clock that went back by more begins again there: a fire time that has its run gets no second one.
                due = due_between(job, row["scheduled_until"], now)
                for moment in to_run(job, due, now):
                    slot = datetime.fromtimestamp(moment, UTC).isoformat()
                    insert_run(db, job, "schedule", moment, slot)
                db.execute("UPDATE pai_jobs SET scheduled_until = ? WHERE name = ?", (now, job.name))

    def _stop_replaced(self) -> None:
        """Apply the concurrency policy: of a job's scheduled runs, those that another one excludes."""
        for run in self.store.runs(states=(QUEUED,)):
            if run.cause != "schedule" or run.job.concurrency == "allow" or run.due > time.time() or run.attempt > 1:
                continue
            others = [r for r in self.store.runs(run.job.name, (RUNNING,)) if r.id != run.id]
            if not others:
                continue
            with self.store.transaction() as db:
                if run.job.concurrency == "replace":
                    for other in others:
                        update_run(db, other.id, stop=1)
                elif run.job.missed != "catch-up":
                    error = f"run {others[0].id} of this job was still running"
                    db.execute(
                        "UPDATE pai_runs SET state = ?, ended = ?, error = ? WHERE id = ? AND state = ?",
                        (SKIPPED, time.time(), error, run.id, QUEUED),
                    )

    def _start_queued(self, now: float) -> list[str]:
        started = []
        for run in reversed(self.store.runs(states=(QUEUED,))):
            if run.stop:
                self.store.update(run.id, state=STOPPED, ended=time.time(), error="stopped before it began")
            elif run.cause not in OWN and run.due > now - LEFT_SECONDS:
                continue
            elif run.due <= now and (run.job.concurrency == "allow" or not self._busy(run.job.name)):
                started += [run.id] if self.start(run.id) else []
        return started

    def _busy(self, name: str) -> bool:
        running = [run.id for run in self.store.runs(name, (RUNNING,))]
        mine = [run.id for run in self.store.runs(name, (QUEUED,)) if run.id in self._processes]
        return bool(running or mine)


def due_between(job: Job, after: float, until: float) -> list[float]:
    """A job's fire times in ``(after, until]``, seconds since the epoch; of very many, the latest hundred."""
    if job.at:
        once = parse_moment(job.at, job.timezone).timestamp()
        return [once] if after < once <= until else []
    times: list[float] = []
    for moment in islice(fire_times(job.cron, job.timezone, datetime.fromtimestamp(after, UTC)), 1_000_000):
        if moment.timestamp() > until:
            break
        times.append(moment.timestamp())
    return times[-MOST_CAUGHT_UP:]


def drain(store: JobStore, run_ids: Sequence[str], most: int = 1, poll: float = 0.2) -> list[str]:
    """Carry out queued runs, their retries and the jobs that come after them; returns the ids of all that ended.

    Beside a scheduler on the same store it waits for the runs that the other one took.
    """
    todo, ended, processes = list(run_ids), list[str](), dict[str, subprocess.Popen[bytes]]()
    try:
        while todo:
            for run_id in requeue_lost(store):
                end_processes(run_id)
            for run_id in list(todo):
                process = processes.get(run_id)
                if process is not None and process.poll() is not None:
                    processes.pop(run_id)
                run = store.run(run_id)
                if run.state in ENDED and run_id not in processes:
                    todo.remove(run_id)
                    ended.append(run_id)
                    todo += [r.id for r in store.runs(states=(QUEUED,)) if r.cause == "after" and r.id not in todo]
                elif (
                    run.state == QUEUED
                    and run_id not in processes
                    and len(processes) < most
                    and run.due <= time.time()
                    and (run.job.concurrency == "allow" or not store.runs(run.job.name, (RUNNING,)))
                ):
                    processes[run_id] = spawn(store, run_id)
            time.sleep(poll)
    except KeyboardInterrupt:
        for run_id in todo:
            store.update(run_id, stop=1)
        raise
    finally:
        for process in processes.values():
            process.wait()
    return ended
