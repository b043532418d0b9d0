"""Airflow: a DAG file for Airflow 2.4 or newer, 3 included; a task for the job and for each that it comes after."""

from __future__ import annotations

import shlex
from datetime import UTC

from paibook.errors import PlanError
from paibook.jobs.exporters.command import host_command, secret_names, spec_text
from paibook.jobs.exporters.cron_fields import portable
from paibook.jobs.exporters.graph import first_of, with_predecessors
from paibook.jobs.exporters.request import ExportOptions, need
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
{tasks}'''
TASK = """\
    {variable}BashOperator(
        task_id="{task}",
        bash_command={command!r},
{more}    )
"""
# When a task runs, by how those before it ended.
RULES = {"success": "all_success", "failure": "all_failed", "any": "all_done"}


def export(job: Job, options: ExportOptions) -> dict[str, str]:
    """``NAME_dag.py`` and the spec of each of its tasks: the job, and all that it comes after.

    Raises:
        PlanError: It replaces itself, is to leave out what was missed, or comes after others in ways that one trigger
            rule does not say.
    """
    jobs = with_predecessors(job, options)
    first = first_of(jobs)
    why = "Airflow waits with a run or makes it beside another; it cannot stop the one before"
    need(first.concurrency != "replace", first, options, "concurrency", why, "take --concurrency forbid")
    why = "Airflow runs the latest time that it missed"
    need(first.missed != "skip" or not first.cron, first, options, "missed", why, "take --missed once")
    specs = {f"{one.slug}.job.json": spec_text(one) for one in jobs}
    return {f"{job.slug}_dag.py": _dag(job, first, jobs, options), **specs}


def _dag(job: Job, first: Job, jobs: list[Job], options: ExportOptions) -> str:
    names = sorted({name for one in jobs for name in secret_names(one)})
    start = parse_moment(first.at, first.timezone) if first.at else options.now.astimezone(UTC)
    timetable, schedule = "", "None"
    if first.cron:
        timetable = "from airflow.timetables.trigger import CronTriggerTimetable\n"
        schedule = f"CronTriggerTimetable({portable(first.cron)!r}, timezone={first.timezone!r})"
    elif first.at:
        schedule = '"@once"'
    return TEMPLATE.format(
        name=job.name,
        slug=job.slug,
        description=f"paibook job {job.name}",
        import_timetable=timetable,
        schedule=schedule,
        start=start.replace(microsecond=0).isoformat(),
        catchup=first.missed == "catch-up",
        most=16 if first.concurrency == "allow" else 1,
        tasks=_tasks(jobs, options),
        secrets=f"Secrets are Airflow's variables: {', '.join(names)}.\n" if names else "",
    )


def _tasks(jobs: list[Job], options: ExportOptions) -> str:
    if len(jobs) == 1:
        return _task(jobs[0], options, "", "run", "")
    names = {job.name: f"task_{index}" for index, job in enumerate(jobs, 1)}
    texts = [_task(job, options, f"{names[job.name]} = ", job.slug, _rule(job, options)) for job in jobs]
    for job in jobs:
        if job.after:
            before = ", ".join(names[dependency.job] for dependency in job.after)
            texts.append(f"    [{before}] >> {names[job.name]}\n")
    return "".join(texts)


def _task(job: Job, options: ExportOptions, variable: str, task: str, rule: str) -> str:
    pairs = ", ".join(f'"{name}": "{{{{ var.value.{name} }}}}"' for name in secret_names(job))
    more = f"        env={{{pairs}}},\n        append_env=True,\n" if pairs else ""
    more += f"        trigger_rule={rule!r},\n" if rule else ""
    command = bash_template(host_command(job, options, f"{job.slug}.job.json"))
    return TASK.format(variable=variable, task=task, command=command, more=more)


def _rule(job: Job, options: ExportOptions) -> str:
    whens = sorted({dependency.when for dependency in job.after})
    if len(whens) > 1:
        raise PlanError(
            f"job {job.name!r} comes after others on {' and '.join(whens)}, and Airflow has one rule for all that come "
            "before a task; put a job in between, or export it to argo"
        )
    if whens in ([], ["success"]):
        return ""
    for dependency in job.after:
        if options.known[dependency.job].after:
            raise PlanError(
                f"job {job.name!r} comes after {dependency.job!r} on {whens[0]}; Airflow takes {dependency.job!r} for "
                "failed also where it did not run, because what comes before it failed: export it to argo"
            )
    return RULES[whens[0]]


def bash_template(words: list[str]) -> str:
    """A command for Jinja, which Airflow fills in: every brace stands for itself.

    The space at its end keeps Airflow from taking a command that ends in ``.sh`` for a template's file.
    """
    return shlex.join(words).replace("{", "{{ '{' }}") + " "
