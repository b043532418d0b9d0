"""A job in a Git repository, for the services that run what a repository holds."""

from __future__ import annotations

import platform
import shlex
from dataclasses import replace
from pathlib import Path, PurePosixPath

from paibook.errors import PlanError
from paibook.jobs.exporters.command import need_no_keyring, spec_text
from paibook.jobs.exporters.image import lock_text, refuse_host_paths
from paibook.jobs.exporters.request import ExportOptions
from paibook.jobs.job import Job

RESULTS = "paibook-runs"
# Where paibook keeps what runs leave, within the repository's folder.
FOLDERS = {"PAIBOOK_JOBS": f"{RESULTS}/jobs", "PAIBOOK_RUNS": f"{RESULTS}/cells"}
PYTHON = ".".join(platform.python_version_tuple()[:2])


def repository_files(job: Job, options: ExportOptions, target: str) -> dict[str, str]:
    """The spec and the lock, in the folder ``jobs`` of the repository.

    Raises:
        PlanError: The job has secrets in a keyring, or data that is on this host alone.
    """
    need_no_keyring(job, target)
    path, root = notebook_path(job), _root(job)
    inside = replace(
        job,
        notebook=str(path),
        environment="",
        output=f"{RESULTS}/outputs" if job.output else "",
        keep=None,
        # Files of the repository are there too.
        parameters={name: value for name, value in job.parameters.items() if not _is_in(root, job, value)},
    )
    refuse_host_paths(replace(inside, notebook=job.notebook), target)
    inside = replace(inside, parameters=job.parameters)
    return {f"jobs/{job.slug}.job.json": spec_text(inside), f"jobs/{job.slug}.requirements.txt": lock_text(options)}


def notebook_path(job: Job) -> PurePosixPath:
    """The notebook's path in its repository.

    Raises:
        PlanError: It lies in none.
    """
    root = _root(job)
    if root is None:
        raise PlanError(
            f"job {job.name!r}: {job.notebook!r} lies in no Git repository; `git init` its folder, or use --to zip"
        )
    path = PurePosixPath(Path(job.notebook).absolute().relative_to(root).as_posix())
    if any(ord(character) < 32 for character in str(path)):
        raise PlanError(f"the path of the notebook, {str(path)!r}, has a control character; rename it first")
    return path


def steps(job: Job) -> list[str]:
    """Shell lines that install what the job needs and run it, from the repository's root."""
    words = ["paibook", "job", "run", f"./{notebook_path(job)}", "--spec", f"jobs/{job.slug}.job.json"]
    return [f"pip install -r jobs/{job.slug}.requirements.txt", shlex.join(words)]


def _root(job: Job) -> Path | None:
    return next((folder for folder in Path(job.notebook).absolute().parents if (folder / ".git").exists()), None)


def _is_in(root: Path | None, job: Job, value: object) -> bool:
    """Whether a value is the relative path of a file of the repository."""
    if root is None or not isinstance(value, str) or not value or "\0" in value or Path(value).is_absolute():
        return False
    return (Path(job.notebook).absolute().parent / value).resolve().is_relative_to(root.resolve())
