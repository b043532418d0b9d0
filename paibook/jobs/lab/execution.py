"""A row of jupyter-scheduler's table, carried out as a run of paibook's store."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyter_scheduler.executors import DefaultExecutionManager
from jupyter_scheduler.models import JobFeature, Status
from jupyter_scheduler.orm import Job as Row
from jupyter_scheduler.utils import get_utc_timestamp

from paibook.jobs.job import Job
from paibook.jobs.lab.environments import HERE, PaiEnvironmentManager
from paibook.jobs.lab.options import job_options
from paibook.jobs.notebook import parameters_of, read_notebook
from paibook.jobs.outputs import SUFFIXES
from paibook.jobs.parameters import parse_value
from paibook.jobs.records import JobRun
from paibook.jobs.store import JobStore
from paibook.settings import settings

LONGEST_MESSAGE = 1024
SLOT = "lab"


class PaiExecutionManager(DefaultExecutionManager):
    """Queues the run of a row. A scheduler starts its process, and the row follows it: ``PaiScheduler.reconcile``."""

    def before_start(self) -> None:
        """Nothing: the row is in progress when its run is."""

    def execute(self) -> None:
        """Queue the run.

        Raises:
            PlanError: It cannot be meant.
        """
        enqueue(JobStore(settings().jobs), self.model, self.staging_paths)

    def on_failure(self, e: Exception) -> None:
        """Say why there is no run."""
        with self.db_session() as session:
            values = {"status": Status.FAILED, "status_message": str(e)[:LONGEST_MESSAGE]}
            values["end_time"] = get_utc_timestamp()
            session.query(Row).filter(Row.job_id == self.job_id).update(values)
            session.commit()

    def on_complete(self) -> None:
        """Nothing: the row is complete when its run is."""

    def supported_features(self) -> dict[JobFeature, bool]:
        """What the dialog may offer; jupyter-scheduler calls it with the class for ``self``."""
        supported = ("job_name", "parameters", "output_formats", "job_definition", "idempotency_token", "tags")
        also = ("timeout_seconds", "max_retries", "stop_job", "delete_job")
        return {feature: feature.value in supported + also for feature in JobFeature}


def enqueue(store: JobStore, model: Any, staging_paths: Mapping[str, str]) -> str:
    """Queue the run of a row; the same one however often it is asked for."""
    made = store.add_run(job_of(model, staging_paths["input"]), "dialog", slot=SLOT)
    return made or store.runs(model.job_id)[0].id


def job_of(model: Any, notebook: str, name: str = "") -> Job:
    """A row, or the request for one, as a job; its texts become values of the types that the notebook declares.

    Args:
        name: The job's; the row's id if empty: rows never wait for one another.

    Raises:
        PlanError: An option or the environment cannot be meant.
    """
    known = parameters_of(read_notebook(Path(notebook)))
    texts = dict(model.parameters or {})
    parameters = {n: t if n in known and known[n].type == "str" else parse_value(t) for n, t in texts.items()}
    options = job_options(model.runtime_environment_parameters)
    options.setdefault("environment", environment_path(model.runtime_environment_name))
    return Job(name or model.job_id, notebook, parameters, outputs=_outputs(model), **options)


def environment_path(name: str) -> str:
    """The environment that was chosen in the dialog; empty for the server's own."""
    if name == HERE:
        return ""
    paths = {e.name: (e.metadata or {}).get("path", "") for e in PaiEnvironmentManager().list_environments()}
    return str(paths.get(name, name if Path(name).is_absolute() else ""))


def deliver(store: JobStore, run: JobRun, staging_paths: Mapping[str, str]) -> None:
    """Copy what a run wrote to where the dialog looks for it; of a failed one, the notebook as far as it came."""
    folder = store.folder(run.id)
    for kind, path in staging_paths.items():
        source = folder / ("output.ipynb" if kind == "ipynb" else f"{run.job.slug}{SUFFIXES.get(kind, '')}")
        if kind in SUFFIXES and source.exists():
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            # Another server may be doing the same.
            temporary = f"{path}.{os.getpid()}"
            shutil.copyfile(source, temporary)
            Path(temporary).replace(path)


def _outputs(model: Any) -> tuple[str, ...]:
    return tuple(kind for kind in model.output_formats or ("ipynb",) if kind in SUFFIXES) or ("ipynb",)
