"""The container image of a job: its notebook, its spec and a lock of what is installed here."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from paibook.errors import PlanError
from paibook.jobs.exporters.command import need_no_keyring, spec_text, without_cards
from paibook.jobs.exporters.request import ExportOptions
from paibook.jobs.job import Job
from paibook.jobs.notebook import check_job, with_parameters
from paibook.jobs.provenance import installed

# Runs as nobody in particular: a cluster may forbid root.
USER = 10001
RUNS = "/runs"
FOLDER = "/job"


def image_files(jobs: Sequence[Job], options: ExportOptions, target: str) -> dict[str, str]:
    """``Dockerfile``, each job's notebook without its outputs and its spec, and ``requirements.txt``.

    Raises:
        PlanError: A notebook cannot be used, or its data or secrets lie on this host alone.
    """
    names = [name for job in jobs for name in _names(job, jobs)]
    files = {
        "Dockerfile": _dockerfile(jobs),
        ".dockerignore": "".join(
            f"{line}\n" for line in ("*", *(f"!{n}" for n in ("requirements.txt", "*.whl", *names)))
        ),
        "requirements.txt": lock_text(options),
    }
    for job in jobs:
        notebook = check_job(job)
        need_no_keyring(job, target)
        refuse_host_paths(job, target)
        spec, path = _names(job, jobs)
        output = f"{RUNS}/outputs" if job.output else ""
        inside = replace(job, notebook=f"{FOLDER}/{path}", environment="", output=output, keep=None)
        files[spec] = spec_text(without_cards(inside))
        files[path] = json.dumps(with_parameters(notebook, {}), indent=1, ensure_ascii=False) + "\n"
    return files


def command(job: Job, jobs: Sequence[Job]) -> list[str]:
    """The words that start one of the image's jobs."""
    spec, notebook = _names(job, jobs)
    return ["paibook", "job", "run", f"{FOLDER}/{notebook}", "--spec", f"{FOLDER}/{spec}"]


def _names(job: Job, jobs: Sequence[Job]) -> tuple[str, str]:
    """Of a job's spec and notebook."""
    return ("job.json", "notebook.ipynb") if len(jobs) == 1 else (f"{job.slug}.job.json", f"{job.slug}.ipynb")


def need_image(job: Job, options: ExportOptions) -> str:
    """The image's name; an example where none was given would only fail on the cluster.

    Raises:
        PlanError: None was given.
    """
    if not options.image:
        raise PlanError(f"job {job.name!r}: name the image, such as --image registry.example/me/{job.slug}:1")
    return options.image


def lock_text(options: ExportOptions) -> str:
    """``name==version`` lines, as pip reads them."""
    return "".join(f"{line}\n" for line in options.packages or installed())


def refuse_host_paths(job: Job, target: str) -> None:
    """Refuse parameters that name files of this host.

    Raises:
        PlanError: Names them.
    """
    for name, value in job.parameters.items():
        if isinstance(value, str) and value and "\0" not in value and len(value) < 4096:
            path = Path(job.notebook).parent / value
            if path.is_file() or (path.is_absolute() and path.is_dir()):
                raise PlanError(
                    f"job {job.name!r}: parameter {name} names {value!r} on this host, which {target} cannot reach; "
                    "put the data where both can, such as s3://bucket/data, and give that address"
                )


def _dockerfile(jobs: Sequence[Job]) -> str:
    names = " ".join(name for job in jobs for name in _names(job, jobs))
    start = f"CMD {json.dumps(command(jobs[0], jobs))}\n" if len(jobs) == 1 else ""
    version = ".".join(platform.python_version_tuple()[:2])
    return f"""\
# docker build -t IMAGE . && docker push IMAGE
FROM python:{version}-slim
RUN useradd --uid {USER} --create-home paibook && mkdir {RUNS} && chown {USER} {RUNS}
WORKDIR {FOLDER}
# A wheel that no index has, such as one of your own, may lie beside this file.
COPY requirements.txt *.whl ./
RUN for wheel in *.whl; do [ ! -e "$wheel" ] || pip install --no-cache-dir --no-deps "$wheel"; done
RUN pip install --no-cache-dir -r requirements.txt
COPY {names} ./
ENV PAIBOOK_JOBS={RUNS}/jobs PAIBOOK_RUNS={RUNS}/cells
USER {USER}
{start}"""
