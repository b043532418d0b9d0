"""PAI-DLC: the arguments of ``pai dlc job submit``, and the image's recipe.

The options are those of Alibaba Cloud's "PAI CLI" reference, page "PAI DLC job".
"""

from __future__ import annotations

import shlex

from paibook.errors import PlanError
from paibook.jobs.exporters.command import cards, cores, memory, secret_names
from paibook.jobs.exporters.image import command, image_files, need_image
from paibook.jobs.exporters.request import ExportOptions, need, need_no_predecessors
from paibook.jobs.job import Job

# What a container needs where the job says nothing.
LEAST_MEMORY = 4 * 2**30


def export(job: Job, options: ExportOptions) -> dict[str, str]:
    """``submit.sh`` and the image's files.

    Raises:
        PlanError: It has a schedule, predecessors or secrets, none of which the command takes.
    """
    need_no_predecessors(job, options, "PAI-DLC")
    why = "PAI-DLC starts a job when it is submitted, and has no schedule"
    instead = "submit it from DataWorks or by cron"
    need(not job.cron and not job.at, job, options, "schedule", why, instead)
    if secret_names(job):
        raise PlanError(
            f"job {job.name!r}: DLC keeps a job's environment in the clear, so {', '.join(secret_names(job))} cannot "
            "be handed over; let the notebook fetch it, by the instance's RAM role"
        )
    return {"submit.sh": _script(job, options), **image_files([job], options, "PAI-DLC")}


def arguments(job: Job, options: ExportOptions) -> list[str]:
    """The words after ``pai dlc job submit``; one node, on which the job makes its cluster."""
    words = ["--name", job.slug, "--job-type", "PyTorchJob", "--image", need_image(job, options)]
    words += ["--command", shlex.join(command(job, [job])), "--worker-count", "1", "--cpu", str(cores(job))]
    size = memory(job) or LEAST_MEMORY * cores(job)
    words += ["--memory", f"{-(-size // 2**30)}Gi"]
    if cards(job):
        words += ["--gpu", str(cards(job))]
    return words


def _script(job: Job, options: ExportOptions) -> str:
    where = f"# The work itself is done on the cluster {job.cluster}.\n" if not job.own_cluster else ""
    return (
        f"#!/bin/sh\n# Submits the paibook job {job.name!r} to PAI-DLC; first build and push the image.\n"
        "# Options of your own may follow, such as --workspace-id, --resource-id or --gpu-type.\n"
        f'{where}exec pai dlc job submit {shlex.join(arguments(job, options))} "$@"\n'
    )
