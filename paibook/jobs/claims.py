"""Who runs what: queued runs are claimed in a transaction, and runs whose process is gone are queued again."""

from __future__ import annotations

import os
import socket
import time

from paibook.gpus.holders import start_of
from paibook.jobs.job import Job
from paibook.jobs.records import DONE, ENDED, FAILED, QUEUED, RUNNING, STOPPED, JobRun
from paibook.jobs.store import JobStore, update_run

LEASE_SECONDS = 60.0
HEARTBEAT_SECONDS = 1.0
MOST_LOSSES = 3
ENDS = {"success": (DONE,), "failure": (FAILED,), "any": ENDED}


def claim(store: JobStore, run_id: str) -> bool:
    """Take a queued run for this process; False where another was first, or it may not run now."""
    with store.transaction() as db:
        row = db.execute("SELECT state, stop, name, spec FROM pai_runs WHERE id = ?", (run_id,)).fetchone()
        if row is None or row["state"] != QUEUED:
            return False
        if row["stop"]:
            update_run(db, run_id, state=STOPPED, ended=time.time(), error="stopped before it began")
            return False
        if Job.from_json(row["spec"]).concurrency != "allow":
            busy = db.execute("SELECT 1 FROM pai_runs WHERE name = ? AND state = ?", (row["name"], RUNNING)).fetchone()
            if busy is not None:  # it waits in the queue
                return False
        now = time.time()
        mine = {"host": socket.gethostname(), "pid": os.getpid(), "born": start_of(os.getpid()), "heartbeat": now}
        update_run(db, run_id, state=RUNNING, started=now, ended=None, error="", traceback="", cell=-1, **mine)
        return True


def beat(store: JobStore, run_id: str) -> bool:
    """Say that the run's process lives; returns whether it shall stop: asked to, or no longer its own."""
    with store.transaction() as db:
        row = db.execute("SELECT state, pid, host, stop FROM pai_runs WHERE id = ?", (run_id,)).fetchone()
        if row is None or row["state"] != RUNNING or (row["host"], row["pid"]) != (socket.gethostname(), os.getpid()):
            return True
        update_run(db, run_id, heartbeat=time.time())
        return bool(row["stop"])


def is_alive(run: JobRun, now: float) -> bool:
    """Whether the process that runs it lives.

    On its own host the process itself is looked at, so that neither a clock that jumps nor a suspended machine makes
    a run look lost; from elsewhere, only the heartbeat tells.
    """
    if run.host == socket.gethostname():
        return start_of(run.pid) == run.born
    return abs(now - run.heartbeat) < LEASE_SECONDS


def requeue_lost(store: JobStore) -> list[str]:
    """Queue again the runs whose process ended without a word; returns their ids.

    They go on where they were. A run that loses its process three times fails: it is likely what kills it.
    """
    lost = []
    for run in store.runs(states=(RUNNING,)):
        if is_alive(run, time.time()):
            continue
        with store.transaction() as db:
            row = db.execute("SELECT state, pid, host FROM pai_runs WHERE id = ?", (run.id,)).fetchone()
            if row is None or (row["state"], row["pid"], row["host"]) != (RUNNING, run.pid, run.host):
                continue  # it ended, or another scheduler saw it first
            if run.stop:
                update_run(db, run.id, state=STOPPED, ended=time.time(), error="stopped")
                continue
            if run.attempt >= MOST_LOSSES + run.job.retries:
                error = "its process was killed, again and again (the system may be out of memory)"
                update_run(db, run.id, state=FAILED, ended=time.time(), error=error)
                continue
            update_run(db, run.id, state=QUEUED, pid=0, host="", attempt=run.attempt + 1, resume=1)
            lost.append(run.id)
    return lost


def retry(store: JobStore, run: JobRun, error: str, traceback: str) -> bool:
    """After a failed attempt, queue the next with back-off; False where none is left."""
    if run.attempt > run.job.retries:
        return False
    wait = run.job.backoff * 2 ** (run.attempt - 1)
    with store.transaction() as db:
        row = db.execute("SELECT state, pid FROM pai_runs WHERE id = ?", (run.id,)).fetchone()
        if row is None or row["state"] != RUNNING or row["pid"] != os.getpid():
            return False
        again = {"due": time.time() + wait, "attempt": run.attempt + 1, "pid": 0, "host": ""}
        update_run(db, run.id, state=QUEUED, error=error, traceback=traceback, **again)
    return True


def queue_followers(store: JobStore) -> list[str]:
    """Queue the jobs whose predecessors have all ended as they wait for; returns the runs' ids.

    Decided from the store alone and once for each set of predecessors' runs, so that it may be called by anybody at
    any time: a process that dies right after its run ended loses nothing.
    """
    made = []
    for follower in store.jobs():
        latest = [next(iter(store.runs(dependency.job)), None) for dependency in follower.after]
        ended = [run for run in latest if run is not None and (run.ended or 0) >= store.scheduled_until(follower.name)]
        if not follower.after or len(ended) < len(latest):
            continue
        if not all(run.state in ENDS[d.when] for d, run in zip(follower.after, ended, strict=True)):
            continue
        slot = "after " + " ".join(f"{run.id}.{run.attempt}" for run in ended)
        if (run_id := store.add_run(follower, "after", slot=slot)) is not None:
            made.append(run_id)
    return made
