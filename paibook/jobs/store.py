"""The store of jobs and their runs: one SQLite file that any number of processes use at once."""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paibook.errors import PaibookError
from paibook.jobs.job import Job
from paibook.jobs.records import ENDED, QUEUED, RUNNING, JobRun
from paibook.jobs.schedule import parse_moment
from paibook.jobs.suggestions import nearest

# Names of their own, so that the file may be jupyter-scheduler's too.
SCHEMA = """
CREATE TABLE IF NOT EXISTS pai_jobs (
    name TEXT PRIMARY KEY, spec TEXT NOT NULL, created REAL NOT NULL, scheduled_until REAL NOT NULL,
    paused INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS pai_runs (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, spec TEXT NOT NULL, state TEXT NOT NULL, due REAL NOT NULL,
    slot TEXT NOT NULL, cause TEXT NOT NULL, attempt INTEGER NOT NULL DEFAULT 1, started REAL, ended REAL,
    error TEXT NOT NULL DEFAULT '', traceback TEXT NOT NULL DEFAULT '', cell INTEGER NOT NULL DEFAULT -1,
    host TEXT NOT NULL DEFAULT '', pid INTEGER NOT NULL DEFAULT 0, born REAL NOT NULL DEFAULT 0,
    heartbeat REAL NOT NULL DEFAULT 0, stop INTEGER NOT NULL DEFAULT 0, resume INTEGER NOT NULL DEFAULT 0,
    provenance TEXT NOT NULL DEFAULT '{}', UNIQUE (name, slot)
);
CREATE INDEX IF NOT EXISTS pai_runs_by_state ON pai_runs (state, due);
"""
FILE = "jobs.sqlite"
BUSY_SECONDS = 30.0


class JobStore:
    """Jobs and runs under one folder.

    Args:
        root: Holds the database and a folder for each run; made when needed, readable by this user only.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / FILE
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self.transaction() as db:
                for statement in SCHEMA.split(";"):
                    db.execute(statement)
        except (OSError, sqlite3.Error) as error:
            raise PaibookError(
                f"cannot keep jobs in {root}: {error}; set PAIBOOK_JOBS to a folder that you can write to"
            ) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A connection that holds the write lock from the start, so that two processes never decide on one state."""
        db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        db.row_factory = sqlite3.Row
        try:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")
        finally:
            db.close()

    def save(self, job: Job, replace: bool = False) -> None:
        """Keep a job; its fire times count from now.

        Raises:
            PaibookError: There is one of that name, and ``replace`` is False; its one moment has passed; or a job that
                it comes after is unknown, or comes after it.
        """
        if job.at and parse_moment(job.at, job.timezone).timestamp() <= time.time():
            raise PaibookError(f"job {job.name!r} would run at {job.at} ({job.timezone}), which has passed")
        with self.transaction() as db:
            known = {row["name"]: Job.from_json(row["spec"]) for row in db.execute("SELECT name, spec FROM pai_jobs")}
            if job.name in known and not replace:
                raise PaibookError(f"there is a job called {job.name!r}; delete it, or say --replace")
            _check_order(job, known)
            now = time.time()
            db.execute(
                "INSERT INTO pai_jobs (name, spec, created, scheduled_until) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET spec = excluded.spec, scheduled_until = excluded.scheduled_until",
                (job.name, job.to_json(), now, now),
            )

    def jobs(self) -> list[Job]:
        """All jobs, by name."""
        return [Job.from_json(row["spec"]) for row in self._read("SELECT spec FROM pai_jobs ORDER BY name")]

    def job(self, name: str) -> Job:
        """A job by its name. Raises ``PaibookError`` with the nearest name where there is none."""
        rows = self._read("SELECT spec FROM pai_jobs WHERE name = ?", name)
        if not rows:
            known = [job.name for job in self.jobs()]
            there = f"there are {', '.join(known[:10])}" if known else "there are none yet"
            raise PaibookError(f"no job is called {name!r}{nearest(name, known)}; {there}")
        return Job.from_json(rows[0]["spec"])

    def scheduled_until(self, name: str) -> float:
        """Up to when a job's fire times and predecessors are dealt with, seconds since the epoch."""
        rows = self._read("SELECT scheduled_until FROM pai_jobs WHERE name = ?", name)
        return float(rows[0]["scheduled_until"]) if rows else 0.0

    def delete(self, name: str) -> None:
        """Forget a job; its ended runs stay. Raises ``PaibookError`` while it runs or another comes after it."""
        self.job(name)
        followers = [job.name for job in self.jobs() if any(d.job == name for d in job.after)]
        if followers:
            raise PaibookError(f"job {name!r} cannot be deleted: {', '.join(followers)} come after it")
        with self.transaction() as db:
            active = f"SELECT id FROM pai_runs WHERE name = ? AND state IN ('{QUEUED}', '{RUNNING}')"
            if (row := db.execute(active, (name,)).fetchone()) is not None:
                raise PaibookError(f"job {name!r} has the run {row['id']}; stop it first")
            db.execute("DELETE FROM pai_jobs WHERE name = ?", (name,))

    def add_run(self, job: Job, cause: str, due: float | None = None, slot: str = "", **columns: Any) -> str | None:
        """Queue a run; returns its id, or None where the slot of this job has a run already.

        Args:
            slot: Names one occasion, such as a fire time: however many schedulers see it, one run is made of it.
        """
        with self.transaction() as db:
            return insert_run(db, job, cause, time.time() if due is None else due, slot, **columns)

    def runs(self, name: str = "", states: tuple[str, ...] = (), most: int = -1) -> list[JobRun]:
        """Runs, the latest first; at most so many of them."""
        marks = ", ".join("?" * len(states))
        wanted = " AND ".join([*(["name = ?"] if name else []), *([f"state IN ({marks})"] if states else [])])
        where = f"WHERE {wanted}" if wanted else ""
        values = [*([name] if name else []), *states, most]
        return [_run(row) for row in self._read(f"SELECT * FROM pai_runs {where} ORDER BY id DESC LIMIT ?", *values)]

    def run(self, run_id: str) -> JobRun:
        """A run by its id, a unique part of its beginning or end, or the name of a job for its latest.

        Raises:
            PaibookError: None or several match.
        """
        rows = self._read("SELECT * FROM pai_runs WHERE id = ?", run_id)
        if not rows:
            rows = self._read("SELECT * FROM pai_runs WHERE name = ? ORDER BY id DESC LIMIT 1", run_id)
        if not rows and run_id:
            every = self._read("SELECT * FROM pai_runs ORDER BY id DESC")
            rows = [row for row in every if row["id"].startswith(run_id) or row["id"].endswith(run_id)]
        if not rows:
            latest = ", ".join(run.id for run in self.runs()[:3]) or "none"
            raise PaibookError(f"no run and no job with runs is called {run_id!r}; the latest runs are: {latest}")
        if len(rows) > 1:
            raise PaibookError(f"{run_id!r} fits several runs: {', '.join(row['id'] for row in rows[:5])}")
        return _run(rows[0])

    def update(self, run_id: str, **columns: Any) -> None:
        """Change a run's columns."""
        with self.transaction() as db:
            update_run(db, run_id, **columns)

    def finish(self, run_id: str, pid: int, state: str, **columns: Any) -> bool:
        """End a run on behalf of the process that runs it; False where it is no longer its own."""
        with self.transaction() as db:
            row = db.execute("SELECT state, pid FROM pai_runs WHERE id = ?", (run_id,)).fetchone()
            if row is None or row["state"] != RUNNING or row["pid"] != pid:
                return False
            update_run(db, run_id, state=state, ended=time.time(), **columns)
            return True

    def forget_runs(self, name: str, keep: int) -> list[str]:
        """Delete all but the latest ``keep`` ended runs of a job; returns their ids."""
        old = [run.id for run in self.runs(name, ENDED)[keep:]]
        with self.transaction() as db:
            db.executemany("DELETE FROM pai_runs WHERE id = ?", [(run_id,) for run_id in old])
        return old

    def folder(self, run_id: str) -> Path:
        """Where a run keeps its notebook, log and checkpoint."""
        return self.root / "runs" / run_id

    def _read(self, query: str, *values: Any) -> list[sqlite3.Row]:
        db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        db.row_factory = sqlite3.Row
        try:
            return db.execute(query, values).fetchall()
        finally:
            db.close()


def insert_run(db: sqlite3.Connection, job: Job, cause: str, due: float, slot: str = "", **columns: Any) -> str | None:
    """Queue a run within a transaction; None where its slot is taken."""
    run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{job.slug}-{secrets.token_hex(3)}"
    values = {"id": run_id, "name": job.name, "spec": job.to_json(), "state": QUEUED, "due": due, "cause": cause}
    values |= {"slot": slot or run_id, **columns}
    marks = ", ".join("?" * len(values))
    cursor = db.execute(
        f"INSERT OR IGNORE INTO pai_runs ({', '.join(values)}) VALUES ({marks})", tuple(values.values())
    )
    return run_id if cursor.rowcount else None


def update_run(db: sqlite3.Connection, run_id: str, **columns: Any) -> None:
    """Change a run's columns within a transaction."""
    assignments = ", ".join(f"{name} = ?" for name in columns)
    db.execute(f"UPDATE pai_runs SET {assignments} WHERE id = ?", (*columns.values(), run_id))


def _run(row: sqlite3.Row) -> JobRun:
    values = dict(row)
    for name in ("name", "slot"):
        del values[name]
    values["job"] = Job.from_json(values.pop("spec"))
    values["provenance"] = json.loads(values["provenance"])
    values["stop"], values["resume"] = bool(values["stop"]), bool(values["resume"])
    return JobRun(**values)


def _check_order(job: Job, known: dict[str, Job]) -> None:
    for dependency in job.after:
        if dependency.job not in known:
            raise PaibookError(
                f"job {job.name!r} comes after {dependency.job!r}, and there is no such job"
                f"{nearest(dependency.job, known)}; make that one first"
            )
    todo, seen = [dependency.job for dependency in job.after], set[str]()
    while todo:
        name = todo.pop()
        if name == job.name:
            raise PaibookError(f"job {job.name!r} would come after itself, by way of {', '.join(sorted(seen))}")
        if name not in seen and name in known:
            seen.add(name)
            todo += [dependency.job for dependency in known[name].after]
