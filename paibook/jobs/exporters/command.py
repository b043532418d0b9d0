"""How any scheduler starts a job: ``paibook job run`` with the job's spec in a file; secrets by their names alone."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import replace

from paibook.errors import PlanError
from paibook.jobs.exporters.request import ExportOptions
from paibook.jobs.job import Job
from paibook.jobs.secret_references import is_reference


def spec_text(job: Job) -> str:
    """The job's spec as the command reads it. When it runs is the target's to say, so its schedule is left out."""
    return replace(job, cron="", at="", after=()).to_json() + "\n"


def without_cards(job: Job) -> Job:
    """For targets that hand out cards themselves: what they handed out is used as it is, without the lease book."""
    return replace(job, resources=replace(job.resources, gpus_per_worker=0, cards=()))


def secret_names(job: Job) -> list[str]:
    """The environment variables that hold the job's secrets."""
    return sorted({value.partition(":")[2] for value in _references(job) if value.startswith("env:")})


def need_no_keyring(job: Job, target: str) -> None:
    """Refuse secrets from a keyring where there is none.

    Raises:
        PlanError: Names them.
    """
    found = sorted({value for value in _references(job) if value.startswith("keyring:")})
    if found:
        raise PlanError(
            f"job {job.name!r}: {target} has no keyring to look {', '.join(found)} up in; refer to it as env:NAME"
        )


def host_command(job: Job, options: ExportOptions, spec: str) -> list[str]:
    """The words of the command for a target on this host. ``spec`` is the file's name in the export's folder."""
    for what, text in (("notebook", job.notebook), ("export folder", str(options.folder))):
        if any(ord(character) < 32 for character in text):
            raise PlanError(f"the path of the {what}, {text!r}, has a control character; rename it first")
    path = str(options.folder / spec)
    return [options.python, "-m", "paibook.jobs.command", "job", "run", job.notebook, "--spec", path]


def run_script(job: Job, options: ExportOptions, spec: str, header: str = "", lock: bool = False) -> str:
    """A shell script that takes the secrets from a file of the user's and starts the job.

    Args:
        header: Lines after the first.
        lock: Whether to end at once where the job still runs.
    """
    names = secret_names(job)
    lines = ["#!/bin/sh", *header.splitlines(), f"# Runs the job {job.name!r} once.", "set -eu"]
    if lock:
        path = shlex.quote(str(options.folder / f".{job.slug}.lock"))
        lines += ["# Still running: this time is left out.", f"exec 9>{path}", "flock -n 9 || exit 0"]
    if names:
        secrets = shlex.quote(str(options.folder / f"{job.slug}.env"))
        lines += [
            f"# Make this file yourself, readable by you alone, with lines such as {names[0]}='...'",
            "set -a",
            f". {secrets}",
            "set +a",
        ]
    lines.append(f"exec {shlex.join(host_command(job, options, spec))}")
    return "\n".join(lines) + "\n"


def cores(job: Job) -> int:
    """Processor cores that the job's workers and servers take where it makes its own cluster."""
    return max(1, job.resources.workers) + job.resources.servers if job.own_cluster else 1


def cards(job: Job) -> int:
    """Cards that its workers take where it makes its own cluster."""
    return job.resources.gpus_per_worker * max(1, job.resources.workers) if job.own_cluster else 0


def memory(job: Job) -> int | None:
    """Bytes for its workers and a quarter of a gibibyte for the notebook itself, or None for no bound."""
    if job.resources.memory is None or not job.own_cluster:
        return None
    return job.resources.memory * max(1, job.resources.workers) + 2**28


def _references(job: Job) -> Iterator[str]:
    yield from (value for value in job.parameters.values() if is_reference(value))
    yield from (value for value in job.variables.values() if is_reference(value))
    if is_reference(job.notify.webhook):
        yield job.notify.webhook


def json_text(values: object) -> str:
    """Plain values as JSON for people to read."""
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
