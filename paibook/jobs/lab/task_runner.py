"""Makes rows of the definitions that are due, those that came due while no server ran included."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

from jupyter_scheduler.exceptions import IdempotencyTokenError
from jupyter_scheduler.models import CreateJob
from jupyter_scheduler.orm import JobDefinition
from jupyter_scheduler.task_runner import BaseTaskRunner
from traitlets import default

from paibook.errors import PaibookError
from paibook.jobs.scheduler import due_between, to_run

TABLE = "CREATE TABLE IF NOT EXISTS pai_definitions (id TEXT PRIMARY KEY, scheduled_until REAL NOT NULL)"
GRACE_SECONDS = 60.0


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
            found = [(d.job_definition_id, d.schedule, d.timezone, d.active, d.update_time) for d in wanted]
        for definition in found:
            try:
                self._make_due(*definition)
            except PaibookError as error:
                self.log.error("job definition %s: %s", definition[0], error)
        self.scheduler.reconcile()
        self.scheduler.runs.tick(time.time())

    def _make_due(self, id: str, cron: str, timezone: str | None, active: bool, updated: int) -> None:
        job: Any = SimpleNamespace(cron=cron, at="", timezone=timezone or "UTC", missed="once", grace=GRACE_SECONDS)
        now, made = time.time(), list[Any]()
        # The lock keeps another server from looking at the same time; the token, one that was killed in between from
        # having made the row already.
        with self.scheduler.store.transaction() as db:
            db.execute(TABLE)
            row = db.execute("SELECT scheduled_until FROM pai_definitions WHERE id = ?", (id,)).fetchone()
            since = max(row[0] if row else 0.0, updated / 1000)
            if active:
                for moment in to_run(job, due_between(job, since, now), now):
                    made += self._make_rows(id, moment)
            db.execute("INSERT OR REPLACE INTO pai_definitions VALUES (?, ?)", (id, now))
        for row in made:  # each takes the lock itself; one that is not begun here is, by whoever looks a minute later
            self.scheduler.begin(row)

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
