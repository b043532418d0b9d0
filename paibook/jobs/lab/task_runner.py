"""Makes rows of the definitions that are due, those that came due while no server ran included."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from jupyter_scheduler.exceptions import IdempotencyTokenError
from jupyter_scheduler.models import CreateJob, Status
from jupyter_scheduler.orm import Job as Row
from jupyter_scheduler.orm import JobDefinition
from jupyter_scheduler.task_runner import BaseTaskRunner
from traitlets import default

from paibook.jobs.lab.options import job_options
from paibook.jobs.scheduler import due_between, to_run

TABLE = "CREATE TABLE IF NOT EXISTS pai_definitions (id TEXT PRIMARY KEY, scheduled_until REAL NOT NULL)"
GRACE_SECONDS = 60.0
UNFINISHED = [s.value for s in (Status.CREATED, Status.QUEUED, Status.IN_PROGRESS, Status.STOPPING)]


@dataclass(frozen=True)
class _Definition:
    id: str
    cron: str
    timezone: str
    active: bool
    updated: float  # seconds since the epoch
    options: Mapping[str, Any]

    @classmethod
    def of(cls, row: Any) -> _Definition:
        options = row.runtime_environment_parameters or {}
        when = (row.schedule, row.timezone or "UTC", row.active, row.update_time / 1000)
        return cls(row.job_definition_id, *when, options)


class PaiTaskRunner(BaseTaskRunner):
    """Looks every few seconds; any number of servers may share the database."""

    def __init__(self, scheduler: Any, config: Any = None) -> None:
        super().__init__(config=config)
        self.scheduler = scheduler

    @default("poll_interval")
    def _poll_interval(self) -> int:
        return 1  # as often as `paibook job serve` looks

    async def start(self) -> None:
        """Serve until the server ends: definitions here, and the jobs of `paibook job` beside them."""
        while True:
            try:
                await asyncio.to_thread(self.look)
            except Exception:  # a look that fails must not end the scheduler; the next may do
                self.log.exception("looking for due jobs failed")
            await asyncio.sleep(self.poll_interval)

    def look(self) -> None:
        """Do what is due now."""
        with self.scheduler.db_session() as session:
            wanted = session.query(JobDefinition).filter(JobDefinition.schedule.isnot(None)).all()
            found = [_Definition.of(row) for row in wanted]
        for definition in found:
            try:
                self._make_due(definition)
            except Exception as error:  # one with which something is wrong keeps no other waiting
                self.log.error("job definition %s: %s", definition.id, error)
        self.scheduler.reconcile()
        self.scheduler.runs.tick(time.time())

    def _make_due(self, definition: _Definition) -> None:
        options = job_options(definition.options)
        given = {name: options[name] for name in ("missed", "grace") if name in options}
        policy = {"missed": "once", "grace": GRACE_SECONDS, **given}
        job: Any = SimpleNamespace(cron=definition.cron, at="", timezone=definition.timezone, **policy)
        concurrency = options.get("concurrency", "allow")
        now, made, replaced = time.time(), list[Any](), list[str]()
        # The lock keeps another server from looking at the same time; the token, one that was killed in between from
        # having made the row already.
        with self.scheduler.store.transaction() as db:
            db.execute(TABLE)
            row = db.execute("SELECT scheduled_until FROM pai_definitions WHERE id = ?", (definition.id,)).fetchone()
            since = max(row[0] if row else 0.0, definition.updated)
            if definition.active:
                moments = to_run(job, due_between(job, since, now), now)
                for moment in moments[-1:] if concurrency == "replace" else moments:
                    others = [] if concurrency == "allow" else self._unfinished(definition.id)
                    if others and concurrency == "forbid":
                        self.log.info(
                            "job definition %s is due, and %s has not ended: left out", definition.id, others[0]
                        )
                        continue
                    replaced += others
                    made += self._make_rows(definition.id, moment)
            db.execute("INSERT OR REPLACE INTO pai_definitions VALUES (?, ?)", (definition.id, now))
        for job_id in replaced:
            self.scheduler.stop_job(job_id)
        for described in made:  # each takes the lock itself; one that is not begun here is, by who looks a minute later
            self.scheduler.begin(described)

    def _unfinished(self, id: str) -> list[str]:
        with self.scheduler.db_session() as session:
            rows = session.query(Row).filter(Row.job_definition_id == id, Row.status.in_(UNFINISHED)).all()
            return [row.job_id for row in rows]

    def _make_rows(self, id: str, moment: float) -> list[Any]:
        definition = self.scheduler.get_job_definition(id)
        input_uri = self.scheduler.get_staging_paths(definition)["input"]
        values = definition.dict(exclude={"schedule", "timezone"}, exclude_none=True)
        token = f"{id}@{moment:.0f}"
        try:
            return [self.scheduler.create_row(CreateJob(**values, input_uri=input_uri, idempotency_token=token))]
        except IdempotencyTokenError:
            self.log.info("%s has its job already", token)
            return []

    def add_job_definition(self, job_definition_id: str) -> None:
        """Nothing to do: definitions are read when they are looked at."""

    def update_job_definition(self, job_definition_id: str, model: Any) -> None:
        """Nothing to do, as for a new one."""

    def delete_job_definition(self, job_definition_id: str) -> None:
        """Nothing to do, as for a new one."""
