"""GitLab CI: a job, and the pipeline schedule that starts it."""

from __future__ import annotations

import shlex
from typing import Any

from paibook.jobs.exporters.command import cards, secret_names
from paibook.jobs.exporters.cron_fields import portable
from paibook.jobs.exporters.repository import FOLDERS, PYTHON, RESULTS, repository_files, steps
from paibook.jobs.exporters.request import ExportOptions, need, need_cron, need_no_predecessors
from paibook.jobs.exporters.yaml_text import yaml_text
from paibook.jobs.job import Job

VARIABLE = "PAIBOOK_JOB"


def export(job: Job, options: ExportOptions) -> dict[str, str]:
    """``jobs/NAME.gitlab-ci.yml``, ``jobs/NAME.schedule.sh``, the spec and the lock.

    GitLab keeps schedules beside the repository, so a script makes it by GitLab's API.

    Raises:
        PlanError: It runs once, comes after other jobs, catches up or skips, or stops itself.
    """
    need_cron(job, options, "GitLab CI")
    need_no_predecessors(job, options, "a GitLab schedule")
    why = "GitLab runs once what it missed"
    need(job.missed == "once", job, options, "missed", why, "take --missed once")
    why = "a GitLab job waits for the one before, or runs beside it; it does not stop it"
    need(job.concurrency != "replace", job, options, "concurrency", why, "take --concurrency forbid")
    name = job.slug
    header = (
        f"paibook job {job.name!r}. In .gitlab-ci.yml:\n"
        f"include: jobs/{name}.gitlab-ci.yml\nThen run jobs/{name}.schedule.sh once."
    )
    if secret_names(job):
        header += f"\nSecrets: masked CI/CD variables of the project: {', '.join(secret_names(job))}"
    files = {f"jobs/{name}.gitlab-ci.yml": yaml_text({name: _job(job)}, header=header)}
    if job.cron:
        files[f"jobs/{name}.schedule.sh"] = _schedule(job)
    return {**files, **repository_files(job, options, "GitLab CI")}


def _job(job: Job) -> dict[str, Any]:
    made: dict[str, Any] = {
        "image": f"python:{PYTHON}-slim",
        "rules": [{"if": f'$CI_PIPELINE_SOURCE == "schedule" && ${VARIABLE} == "{job.slug}"'}],
        "variables": {name: f"$CI_PROJECT_DIR/{path}" for name, path in FOLDERS.items()},
        "script": steps(job),
        "artifacts": {"when": "always", "paths": [RESULTS]},
    }
    if job.concurrency == "forbid":
        made["resource_group"] = job.slug
    if cards(job):
        made["tags"] = ["gpu"]
    return made


def _schedule(job: Job) -> str:
    fields = {"description": job.name, "cron": portable(job.cron), "cron_timezone": job.timezone}
    words = " ".join(f"--data-urlencode {shlex.quote(f'{name}={value}')}" for name, value in fields.items())
    return f"""\
#!/bin/sh
# Makes the schedule of the paibook job {job.name!r}. Needs curl, jq, and three environment variables:
# GITLAB (such as https://gitlab.com/api/v4), PROJECT (its number), GITLAB_TOKEN (with the scope `api`).
set -eu
schedules="$GITLAB/projects/$PROJECT/pipeline_schedules"
# The token goes by standard input: a command line can be read by everybody on this host.
call() {{
  printf 'header = "PRIVATE-TOKEN: %s"\\n' "$GITLAB_TOKEN" | curl --fail --silent --show-error --config - "$@"
}}
id=$(call {words} --data-urlencode ref="${{BRANCH:-main}}" "$schedules" | jq -er .id)
call --data-urlencode key={VARIABLE} --data-urlencode value={job.slug} "$schedules/$id/variables" > /dev/null
echo "made the schedule $id"
"""
