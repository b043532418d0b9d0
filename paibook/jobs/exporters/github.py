"""GitHub Actions: a workflow with a schedule."""

from __future__ import annotations

from typing import Any

from paibook.jobs.exporters.command import cards, secret_names
from paibook.jobs.exporters.cron_fields import in_zone
from paibook.jobs.exporters.repository import FOLDERS, PYTHON, RESULTS, repository_files, steps
from paibook.jobs.exporters.request import ExportOptions, need, need_cron, need_no_predecessors
from paibook.jobs.exporters.yaml_text import yaml_text
from paibook.jobs.job import Job


def export(job: Job, options: ExportOptions) -> dict[str, str]:
    """``.github/workflows/NAME.yml``, the spec and the lock.

    Raises:
        PlanError: It needs cards, runs at times that no line in UTC has, makes up for missed runs, or comes after
            other jobs.
    """
    need_cron(job, options, "GitHub Actions")
    need_no_predecessors(job, options, "GitHub Actions")
    why = f"GitHub Actions drops a time at which it is busy, and missed is {job.missed!r}"
    need(job.missed == "skip", job, options, "missed", why, "take --missed skip")
    moved = in_zone(job.cron, job.timezone, "UTC") if job.cron else None
    why = f"GitHub Actions reads cron lines in UTC, and none fires when {job.cron!r} does in {job.timezone}"
    need(moved is not None or not job.cron, job, options, "timezone", why, "take --timezone UTC")
    header = f"paibook job {job.name!r}. Results: the artifact of each run, kept as long as the repository says."
    if job.cron:
        header += f"\nTimes are UTC; the job's are {job.cron!r} in {job.timezone}."
    files = repository_files(job, options, "GitHub Actions")
    text = yaml_text(_workflow(job, moved or job.cron), header=header)
    return {f".github/workflows/{job.slug}.yml": text, **files}


def _workflow(job: Job, cron: str) -> dict[str, Any]:
    run: dict[str, Any] = {"name": "Run the job", "run": escaped(steps(job)[1])}
    environment = {name: f"${{{{ secrets.{name} }}}}" for name in secret_names(job)}
    run["env"] = {name: f"${{{{ github.workspace }}}}/{path}" for name, path in FOLDERS.items()} | environment
    keep = {"name": "Keep what it left", "if": "always()", "uses": "actions/upload-artifact@v4"}
    made: dict[str, Any] = {
        "runs-on": ["self-hosted", "gpu"] if cards(job) else "ubuntu-latest",
        "steps": [
            {"uses": "actions/checkout@v4"},
            {"uses": "actions/setup-python@v5", "with": {"python-version": PYTHON}},
            {"name": "Install", "run": steps(job)[0]},
            run,
            {**keep, "with": {"name": job.slug, "path": RESULTS}},
        ],
    }
    if job.concurrency != "allow":
        made["concurrency"] = {"group": job.slug, "cancel-in-progress": job.concurrency == "replace"}
    when: dict[str, Any] = {"workflow_dispatch": {}}
    if cron:
        when = {"schedule": [{"cron": cron}], **when}
    return {"name": job.name, "on": when, "permissions": {"contents": "read"}, "jobs": {"run": made}}


def escaped(text: str) -> str:
    """Text in which GitHub finds no expression of its own."""
    return text.replace("${{", "${{ '${{' }}")
