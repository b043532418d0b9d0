"""jupyter-scheduler's scheduler over paibook's store."""

from __future__ import annotations

import os
import threading
from typing import Any

import psutil
from jupyter_scheduler.models import CreateJob, CreateJobDefinition, Status, UpdateJobDefinition
from jupyter_scheduler.orm import Job as Row
from jupyter_scheduler.orm import JobDefinition
from jupyter_scheduler.scheduler import Scheduler
from jupyter_scheduler.utils import get_utc_timestamp
from sqlalchemy import event
from traitlets import default

from paibook.errors import PaibookError
from paibook.jobs import actions
from paibook.jobs.lab.execution import LONGEST_MESSAGE, PaiExecutionManager, deliver, enqueue, job_of
from paibook.jobs.lab.options import refuse
from paibook.jobs.notebook import check_job
from paibook.jobs.records import DONE, ENDED, FAILED, STOPPED
from paibook.jobs.schedule import check_cron
from paibook.jobs.store import JobStore
from paibook.settings import settings

STATES = {DONE: Status.COMPLETED, FAILED: Status.FAILED, STOPPED: Status.STOPPED}
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
        return JobStore(settings().jobs)

    def create_job(self, model: CreateJob) -> str:
        """As jupyter-scheduler's, once the request is known to make sense. Raises ``SchedulerError`` where not."""
        self._refuse_nonsense(model)
        return str(super().create_job(model))

    def create_job_definition(self, model: CreateJobDefinition) -> str:
        """As jupyter-scheduler's, once the request is known to make sense. Raises ``SchedulerError`` where not."""
        self._refuse_nonsense(model)
        return str(super().create_job_definition(model))

    def _refuse_nonsense(self, model: Any) -> None:
        """Options, parameters of wrong types, a cron line that never fires: said in the dialog."""
        if getattr(model, "idempotency_token", None) and model.job_definition_id:
            return  # made by its schedule, with nobody at the dialog: the row fails, where it is seen
        path = os.path.join(self.root_dir, model.input_uri)
        if os.path.isfile(path):  # jupyter-scheduler says where not
            refuse(lambda: check_job(job_of(model, path, "asked for")))
        if cron := getattr(model, "schedule", None):
            refuse(lambda: check_cron(cron, model.timezone or "UTC"))

    def reconcile(self) -> None:
        """Bring rows to the state of their runs; rows of a server that ended before it queued their run are queued."""
        waiting = (Status.CREATED, Status.IN_PROGRESS, Status.STOPPING, Status.QUEUED)
        store = self.store
        with self.db_session() as session:
            rows = session.query(Row).filter(Row.status.in_([s.value for s in waiting])).all()
            found = [(row.job_id, row.pid, row.create_time) for row in rows]
        for job_id, pid, created in found:
            if pid and psutil.pid_exists(pid) and pid != os.getpid():
                continue  # its own process will say
            runs = store.runs(job_id)
            model = super().get_job(job_id, False)
            if runs and runs[0].state in ENDED:
                deliver(store, runs[0], self.get_staging_paths(model))
                self._end(job_id, STATES.get(runs[0].state, Status.FAILED), runs[0].error)
            elif not runs and get_utc_timestamp() - created > BEGUN_MILLISECONDS:
                try:
                    enqueue(store, model, self.get_staging_paths(model))
                except PaibookError as error:
                    self._end(job_id, Status.FAILED, str(error))

    def stop_job(self, job_id: str) -> None:
        """Ask a run to stop, whichever server started it; the row says so when it has. Returns at once."""
        runs = self.store.runs(job_id)
        if not runs:
            super().stop_job(job_id)
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

    def delete_job(self, job_id: str) -> None:
        """Stop it, and forget it here and in the store."""
        for run in self.store.runs(job_id):
            if run.state not in ENDED:
                actions.stop(self.store, run.id)
        super().delete_job(job_id)
        for run in self.store.runs(job_id, ENDED):
            actions.delete_run(self.store, run.id)

    def update_job_definition(self, job_definition_id: str, model: UpdateJobDefinition) -> None:
        """Keep every change; jupyter-scheduler's own leaves when neither file, schedule nor switch is changed."""
        updates = model.dict(exclude_unset=True, exclude_none=True, exclude={"input_uri"})
        wanted = self.get_job_definition(job_definition_id).copy(update=updates)
        staged = self.get_staging_paths(wanted)["input"]
        refuse(lambda: check_job(job_of(wanted, staged, "asked for")))
        super().update_job_definition(job_definition_id, model)
        if updates:
            with self.db_session() as session:
                found = session.query(JobDefinition).filter(JobDefinition.job_definition_id == job_definition_id)
                found.update(updates)
                session.commit()

    def _end(self, job_id: str, status: Status, message: str) -> None:
        values: dict[str, Any] = {"status": status, "end_time": get_utc_timestamp()}
        if message:
            values["status_message"] = message[:LONGEST_MESSAGE]
        with self.db_session() as session:
            session.query(Row).filter(Row.job_id == job_id).update(values)
            session.commit()
