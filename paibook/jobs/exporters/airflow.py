"""Airflow: a DAG file with one task, for Airflow 2.4 or newer, 3 included."""

from __future__ import annotations

import shlex
from datetime import UTC

from paibook.jobs.exporters.command import host_command, secret_names, spec_text
from paibook.jobs.exporters.cron_fields import portable
from paibook.jobs.exporters.request import ExportOptions, need, need_no_predecessors
from paibook.jobs.job import Job
from paibook.jobs.schedule import parse_moment

TEMPLATE = '''\
"""paibook job {name}. Put this file into Airflow's folder of DAGs.

The command, with the notebook, the spec and the Python that it names, has to be there on Airflow's workers. Retries,
their back-off and the time limit are in the spec: paibook carries them out.
{secrets}"""

from __future__ import annotations

import pendulum

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow import DAG
try:
    from airflow.providers.standard.operators.bash import BashOperator
except ImportError:  # Airflow 2
    from airflow.operators.bash import BashOperator
{import_timetable}
with DAG(
    dag_id={slug!r},
    description={description!r},
    schedule={schedule},
    start_date=pendulum.parse({start!r}),
    catchup={catchup},
    max_active_runs={most},
    tags=["paibook"],
):
    BashOperator(
        task_id="run",
        bash_command={command!r},
{environment}    )
'''


def export(job: Job, options: ExportOptions) -> dict[str, str]:
    """``NAME_dag.py`` and the spec.

    Raises:
        PlanError: It comes after other jobs, replaces itself, or is to leave out what was missed.
    """
    need_no_predecessors(job, options, "a DAG of one job")
    why = "Airflow waits with a run or makes it beside another; it cannot stop the one before"
    need(job.concurrency != "replace", job, options, "concurrency", why, "take --concurrency forbid")
    why = "Airflow runs the latest time that it missed"
    need(job.missed != "skip" or not job.cron, job, options, "missed", why, "take --missed once")
    name = job.slug
    return {f"{name}_dag.py": _dag(job, options), f"{name}.job.json": spec_text(job)}


def _dag(job: Job, options: ExportOptions) -> str:
    names = secret_names(job)
    pairs = ", ".join(f'"{name}": "{{{{ var.value.{name} }}}}"' for name in names)
    start = parse_moment(job.at, job.timezone) if job.at else options.now.astimezone(UTC)
    timetable, schedule = "", "None"
    if job.cron:
        timetable = "from airflow.timetables.trigger import CronTriggerTimetable\n"
        schedule = f"CronTriggerTimetable({portable(job.cron)!r}, timezone={job.timezone!r})"
    elif job.at:
        schedule = '"@once"'
    return TEMPLATE.format(
        name=job.name,
        slug=job.slug,
        description=f"paibook job {job.name}",
        import_timetable=timetable,
        schedule=schedule,
        start=start.replace(microsecond=0).isoformat(),
        catchup=job.missed == "catch-up",
        most=16 if job.concurrency == "allow" else 1,
        command=bash_template(host_command(job, options, f"{job.slug}.job.json")),
        environment=f"        env={{{pairs}}},\n        append_env=True,\n" if names else "",
        secrets=f"Secrets are Airflow's variables: {', '.join(names)}.\n" if names else "",
    )


def bash_template(words: list[str]) -> str:
    """A command for Jinja, which Airflow fills in: every brace stands for itself.

    The space at its end keeps Airflow from taking a command that ends in ``.sh`` for a template's file.
    """
    return shlex.join(words).replace("{", "{{ '{' }}") + " "
