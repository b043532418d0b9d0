"""The targets by name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from paibook.errors import DataError, PlanError
from paibook.jobs.exporters.request import ExportOptions
from paibook.jobs.job import Job
from paibook.jobs.suggestions import nearest

TARGETS = {
    "crontab": "a crontab line and the script that it starts",
    "systemd": "a user's service and timer",
    "kubernetes": "a CronJob, and the image's recipe",
    "argo": "an Argo CronWorkflow, and the image's recipe",
    "airflow": "a DAG file for Airflow 2.4 or newer",
    "github": "a GitHub Actions workflow",
    "gitlab": "a GitLab CI job and the schedule that starts it",
    "slurm": "a batch script, and a line for scrontab",
    "dlc": "the submit command of PAI-DLC, and the image's recipe",
    "script": "a Python script that needs no Jupyter",
    "zip": "a portable archive, read back by `paibook job import`",
}


def export_job(job: Job, to: str, options: ExportOptions | None = None) -> dict[str, str | bytes]:
    """The files of a job for a target, by their names.

    Raises:
        PlanError: There is no such target, or it cannot express the job; says what to do.
    """
    if to not in TARGETS:
        raise PlanError(f"--to {to!r} is unknown{nearest(to, TARGETS)}; there are {', '.join(TARGETS)}")
    module = importlib.import_module(f"paibook.jobs.exporters.{'archive' if to == 'zip' else to}")
    made: dict[str, str | bytes] = module.export(job, options or ExportOptions())
    return made


def write_files(files: Mapping[str, str | bytes], folder: Path, overwrite: bool = False) -> list[Path]:
    """Write exported files; scripts may be executed.

    Raises:
        DataError: A file is there already, or cannot be written; then none is.
    """
    paths = {folder / PurePosixPath(name): content for name, content in files.items()}
    for path in paths:
        if path.exists() and not overwrite:
            raise DataError(f"{path} is there already; choose another folder with -o, or replace it with --overwrite")
    try:
        for path, content in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            if path.suffix == ".sh":
                path.chmod(0o755)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be written: {error.strerror}") from error
    return list(paths)
