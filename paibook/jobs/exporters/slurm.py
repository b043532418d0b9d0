"""SLURM: a batch script for ``sbatch``, and lines for ``scrontab``."""

from __future__ import annotations

import math
import shlex
from datetime import datetime

from paibook.errors import PlanError
from paibook.jobs.exporters.command import cards, cores, memory, run_script, spec_text, without_cards
from paibook.jobs.exporters.cron_fields import in_zone
from paibook.jobs.exporters.request import ExportOptions, need
from paibook.jobs.job import Job
from paibook.jobs.schedule import parse_moment, zone

HOME_ZONE = "UTC"


def export(job: Job, options: ExportOptions) -> dict[str, str]:
    """``NAME.sbatch``, the spec, and ``NAME.scrontab`` or ``NAME.submit.sh``, which begins at the job's moment.

    SLURM reads times on its controller's clock: ``target_zone`` says in which zone that is.

    Raises:
        PlanError: Its times are none of that zone, it catches up or skips, runs beside itself, or its workers need
            more than one host.
    """
    why = "a batch job knows jobs by their numbers alone, which change from time to time"
    instead = "submit both by hand with sbatch --dependency=afterok:NUMBER"
    need(not job.after, job, options, "after", why, instead)
    name = job.slug
    script = run_script(job, options, f"{name}.job.json", header=_header(job))
    files = {f"{name}.sbatch": script, f"{name}.job.json": spec_text(without_cards(job))}
    if job.cron:
        files[f"{name}.scrontab"] = _scrontab(job, options)
    elif job.at:
        files[f"{name}.submit.sh"] = _submit(job, options)
    return files


def _settings(job: Job) -> list[str]:
    made = [f"--job-name={job.slug}", "--nodes=1", "--ntasks=1", f"--cpus-per-task={cores(job)}"]
    if (size := memory(job)) is not None:
        made.append(f"--mem={-(-size // 2**20)}M")
    if cards(job):
        made.append(f"--gpus={cards(job)}")
    if job.timeout is not None:
        # The whole of it: attempts and the waits between them, and a minute to write what came.
        waits = sum(job.backoff * 2**retry for retry in range(job.retries))
        made.append(f"--time={math.ceil(((job.retries + 1) * job.timeout + waits) / 60) + 1}")
    return [*made, f"--output={job.slug}-%j.log"]


def _header(job: Job) -> str:
    lines = [f"#SBATCH {setting}" for setting in _settings(job)]
    if not job.own_cluster:
        lines.append(f"# The work itself is done on the cluster {job.cluster}.")
    return "\n".join(lines)


def _scrontab(job: Job, options: ExportOptions) -> str:
    why = "scrontab runs once what was missed"
    need(job.missed == "once", job, options, "missed", why, "take --missed once")
    why = "scrontab starts a job again when the run before has ended"
    need(job.concurrency == "forbid", job, options, "concurrency", why, "take --concurrency forbid")
    target = options.target_zone or HOME_ZONE
    moved = in_zone(job.cron, job.timezone, target)
    why = f"SLURM's clock is taken to be in {target}, where no line fires when {job.cron!r} does in {job.timezone}"
    need(moved is not None, job, options, "timezone", why, f"say --target-zone {job.timezone} if its clock is there")
    path = str(options.folder / f"{job.slug}.sbatch")
    if "%" in path or "\n" in path:
        raise PlanError(f"the export folder {str(options.folder)!r} has a % or a line break; choose another with -o")
    settings = "\n".join(f"#SCRON {setting}" for setting in _settings(job))
    return (
        f"# paibook job {job.name!r}: add these lines with `scrontab -e`. Times are {target}.\n"
        f"{settings}\n{moved or job.cron} /bin/sh {shlex.quote(path)}\n"
    )


def _submit(job: Job, options: ExportOptions) -> str:
    target = options.target_zone or HOME_ZONE
    moment: datetime = parse_moment(job.at, job.timezone).astimezone(zone(target))
    path = shlex.quote(str(options.folder / f"{job.slug}.sbatch"))
    return (
        f"#!/bin/sh\n# Submits the paibook job {job.name!r}, to begin at a time of SLURM's clock, in {target}.\n"
        f"exec sbatch --begin={moment:%Y-%m-%dT%H:%M:%S} {path}\n"
    )
