"""jupyter-scheduler's scheduler over paibook's store."""

from __future__ import annotations

import asyncio
import os
import threading
from functools import cached_property
from types import SimpleNamespace
from typing import Any

from jupyter_scheduler.exceptions import IdempotencyTokenError, InputUriError, SchedulerError
from jupyter_scheduler.models import CreateJob, CreateJobDefinition, DescribeJob, Status, UpdateJobDefinition
from jupyter_scheduler.orm import Job as Row
from jupyter_scheduler.orm import JobDefinition
from jupyter_scheduler.scheduler import Scheduler
from jupyter_scheduler.utils import get_utc_timestamp
from sqlalchemy import event
from traitlets import default

from paibook.errors import PaibookError
from paibook.jobs import actions
from paibook.jobs.lab.execution import LONGEST_MESSAGE, PaiExecutionManager, deliver, job_of
from paibook.jobs.lab.options import refuse
from paibook.jobs.notebook import check_job
from paibook.jobs.records import DONE, ENDED, FAILED, QUEUED, RUNNING, STOPPED
from paibook.jobs.schedule import check_cron
from paibook.jobs.scheduler import Scheduler as Runs
from paibook.jobs.store import JobStore
from paibook.settings import settings

STATES = {DONE: Status.COMPLETED, FAILED: Status.FAILED, STOPPED: Status.STOPPED}
BEFORE = (Status.CREATED.value, Status.QUEUED.value)
WAITING = (*BEFORE, Status.IN_PROGRESS.value, Status.STOPPING.value)
BEGUN_MILLISECONDS = 60_000


@event.listens_for(Row, "init")
def _queued(_row: Row, _arguments: Any, values: dict[str, Any]) -> None:
    """A new row is queued; jupyter-scheduler's own default shows it as stopped until it begins."""
    values.setdefault("status", Status.QUEUED)


class PaiScheduler(Scheduler):
    """Rows stay jupyter-scheduler's; what they run, and its state, is paibook's."""

    @default("execution_manager_class")
    def _execution_manager_class(self) -> type:
        return PaiExecutionManager

    @default("task_runner_class")
    def _task_runner_class(self) -> type:
        from paibook.jobs.lab.task_runner import PaiTaskRunner

        return PaiTaskRunner

    @property
    def store(self) -> JobStore:
        """The store that `paibook job` uses too."""
        return self.runs.store

    @cached_property
    def runs(self) -> Runs:
        """Carries out what is queued in the store."""
        return Runs(JobStore(settings().jobs))

    async def create_job(self, model: CreateJob) -> str:
        """Keep a row and start its run, without a process of jupyter-scheduler's in between that could end before it.

        Raises:
            InputUriError, IdempotencyTokenError: As jupyter-scheduler's own.
            SchedulerError: The same, or the request makes no sense; says why.
        """
        # The caller is the server's event loop; environments are asked for, and files copied.
        return await asyncio.to_thread(self._create, model)

    def _create(self, model: CreateJob) -> str:
        self._refuse_nonsense(model)
        row = self.create_row(model)
        self.begin(row)
        return str(row.job_id)

    def create_job_definition(self, model: CreateJobDefinition) -> str:
        """As jupyter-scheduler's, once the request is known to make sense. Raises ``SchedulerError`` where not."""
        self._refuse_nonsense(model)
        return str(super().create_job_definition(model))

    def create_row(self, model: CreateJob) -> DescribeJob:
        """Keep a row, with a copy of its notebook; it waits until ``begin``. Raises as ``create_job``."""
        self._check(model)
        values = model.dict(exclude_none=True, exclude={"input_uri"})
        with self.db_session() as session:
            row = Row(**{"output_formats": [], **values})
            session.add(row)
            session.commit()
            described = DescribeJob.from_orm(row)
            self._stage(model, described, row)
            session.commit()
        return described

    def begin(self, described: DescribeJob) -> None:
        """Queue the run of a row and start its process; not of one that was stopped before."""
        with self.db_session() as session:
            if not session.query(Row).filter(Row.job_id == described.job_id, Row.status.in_(BEFORE)).count():
                return
        places = {"staging_paths": self.get_staging_paths(described), "root_dir": self.root_dir}
        self.execution_manager_class(job_id=described.job_id, db_url=self.db_url, **places).process()
        for run in self.store.runs(described.job_id, (QUEUED,)):
            self.runs.start(run.id)

    def reconcile(self) -> None:
        """Bring rows to the state of their runs; rows of a server that ended before it queued their run are queued."""
        with self.db_session() as session:
            rows = session.query(Row).filter(Row.status.in_(WAITING)).all()
            found = [(row.job_id, row.status, row.create_time) for row in rows]
        for job_id, status, created in found:
            try:
                self._reconcile(job_id, status, created)
            except Exception:  # a row with which something is wrong keeps no other waiting
                self.log.exception("the job %s could not be brought to the state of its run", job_id)

    def _reconcile(self, job_id: str, status: str, created: int) -> None:
        run = next(iter(self.store.runs(job_id)), None)
        if run is not None and run.state in ENDED:
            deliver(self.store, run, self.get_staging_paths(self.get_job(job_id, False)))
            message = f"{run.error}\n{run.traceback}".strip()
            self._set(job_id, STATES.get(run.state, Status.FAILED), message, end_time=get_utc_timestamp())
        elif run is not None and run.state == RUNNING and status in BEFORE:
            self._set(job_id, Status.IN_PROGRESS, start_time=int(1000 * (run.started or 0)))
        elif run is None and get_utc_timestamp() - created > BEGUN_MILLISECONDS:
            if status in BEFORE:
                self.begin(self.get_job(job_id, False))
            else:
                self._set(job_id, Status.FAILED, "its run is gone", end_time=get_utc_timestamp())

    def stop_job(self, job_id: str) -> None:
        """Ask a run to stop, whichever server started it; the row says so when it has. Returns at once."""
        runs = self.store.runs(job_id)
        if not runs:
            self._set(job_id, Status.STOPPED, end_time=get_utc_timestamp())
        elif runs[0].state not in ENDED:
            with self.db_session() as session:
                session.query(Row).filter(Row.job_id == job_id).update({"status": Status.STOPPING})
                session.commit()
            # The caller is the server's event loop, and stopping takes as long as the notebook's processes do.
            threading.Thread(target=self._stop, args=(runs[0].id,), name="paibook-stop", daemon=True).start()

    def _stop(self, run_id: str) -> None:
        try:
            actions.stop(self.store, run_id)
        except PaibookError as error:
            self.log.warning("%s", error)

    async def delete_job(self, job_id: str) -> None:
        """Stop it, and forget it here and in the store."""
        await asyncio.to_thread(self._delete, job_id)

    async def delete_job_definition(self, job_definition_id: str) -> None:
        """Forget it with all of its jobs."""
        with self.db_session() as session:
            rows = session.query(Row.job_id).filter(Row.job_definition_id == job_definition_id).all()
        for (job_id,) in rows:
            await self.delete_job(job_id)
        super().delete_job_definition(job_definition_id)

    def _delete(self, job_id: str) -> None:
        for run in self.store.runs(job_id):
            if run.state not in ENDED:
                self._stop(run.id)
        super().delete_job(job_id)
        for run in self.store.runs(job_id, ENDED):
            actions.delete_run(self.store, run.id)

    def update_job_definition(self, job_definition_id: str, model: UpdateJobDefinition) -> None:
        """Keep every change; jupyter-scheduler's own leaves when neither file, schedule nor switch is changed.

        Raises:
            SchedulerError: What it would be then makes no sense; says why.
        """
        self._refuse_change(job_definition_id, model)
        super().update_job_definition(job_definition_id, model)
        updates = model.dict(exclude_unset=True, exclude_none=True, exclude={"input_uri"})
        if updates:
            with self.db_session() as session:
                found = session.query(JobDefinition).filter(JobDefinition.job_definition_id == job_definition_id)
                found.update(updates)
                session.commit()

    def _refuse_change(self, job_definition_id: str, model: UpdateJobDefinition) -> None:
        definition = self.get_job_definition(job_definition_id)
        values = {**definition.dict(), **model.dict(exclude_unset=True, exclude_none=True)}
        if model.input_uri:
            self._refuse_without_kernel(model.input_uri)
        else:
            values["input_uri"] = self.get_staging_paths(definition)["input"]
        self._refuse_nonsense(SimpleNamespace(**values))

    def _refuse_without_kernel(self, input_uri: str) -> None:
        manager = self.execution_manager_class
        if not manager.validate(manager, os.path.join(self.root_dir, input_uri)):
            raise SchedulerError("the notebook names no kernel; open it, choose a kernel and save it")

    def _refuse_nonsense(self, model: Any) -> None:
        """Options, parameters of wrong types, a cron line that never fires: said in the dialog."""
        path = os.path.join(self.root_dir, model.input_uri)
        if os.path.isfile(path):  # else ``_check`` says so, or jupyter-scheduler
            refuse(lambda: check_job(job_of(model, path, "asked for")))
        if cron := getattr(model, "schedule", None):
            refuse(lambda: check_cron(cron, model.timezone or "UTC"))

    def _check(self, model: CreateJob) -> None:
        if not model.job_definition_id and not self.file_exists(model.input_uri):
            raise InputUriError(model.input_uri)
        self._refuse_without_kernel(model.input_uri)
        if token := model.idempotency_token:
            with self.db_session() as session:
                if session.query(Row).filter(Row.idempotency_token == token).first() is not None:
                    raise IdempotencyTokenError(token)

    def _stage(self, model: CreateJob, described: DescribeJob, row: Any) -> None:
        """Copy the notebook, or its folder, to where the row's run reads it: what is changed later is another job's."""
        path = self.get_staging_paths(described)["input"]
        if model.package_input_folder:
            copied = self.copy_input_folder(model.input_uri, path)
            row.packaged_files = [name for name in copied if name != os.path.basename(model.input_uri)]
        else:
            self.copy_input_file(model.input_uri, path)

    def _set(self, job_id: str, status: Status, message: str = "", **values: Any) -> None:
        """Change a row that no other server has ended."""
        if message:
            values["status_message"] = message[:LONGEST_MESSAGE]
        with self.db_session() as session:
            waiting = session.query(Row).filter(Row.job_id == job_id, Row.status.in_(WAITING))
            waiting.update({"status": status, **values}, synchronize_session=False)
            session.commit()
