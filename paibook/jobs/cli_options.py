"""The options that make a job, shared by ``paibook job`` and ``%pai_schedule``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from paibook.errors import PlanError
from paibook.jobs.job import CONCURRENCY, MISSED, Dependency, Job, Notification
from paibook.jobs.notebook import parameters_of, read_notebook
from paibook.jobs.parameters import parse_values


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of a job."""
    add = parser.add_argument
    add("--spec", default="", metavar="FILE", help="begin with this job's JSON; the other options change it")
    add("--name", help="how the job is called (default: as the notebook)")
    add("-p", "--parameter", action="append", default=[], metavar="NAME=VALUE", help="a parameter; secrets as env:NAME")
    add("--cron", metavar="LINE", help="five fields or @daily")
    add("--at", metavar="MOMENT", help="once, such as 2026-01-31T03:00")
    add("--timezone", metavar="NAME", help="of --cron and --at, such as Europe/Berlin (default UTC)")
    add("-n", "--workers", type=int, default=None, metavar="N", help="workers of its cluster")
    add("--gpus", type=int, default=None, metavar="N", help="cards for each worker")
    add("--gpu-share", type=int, default=None, metavar="N", help="percent of each card (default 100)")
    add("--cpu-fallback", action="store_true", help="run on the CPU where there is no card at all")
    add("--cluster", metavar="REFERENCE", help="embedded, inline, tcp://host:8786, ...")
    add("--environment", metavar="PATH", help="a Python, or the folder of a virtual environment")
    add("--env", action="append", default=[], metavar="NAME=VALUE", help="an environment variable of the kernel")
    add("--retries", type=int, metavar="N")
    add("--backoff", type=float, metavar="S", help="seconds before the first retry, then twice as long each time")
    add("--timeout", type=float, metavar="S", help="seconds an attempt may take")
    add("--concurrency", metavar="POLICY", help=" | ".join(CONCURRENCY))
    add("--missed", metavar="POLICY", help=" | ".join(MISSED))
    add("--outputs", metavar="KINDS", help="of ipynb,html,script,pdf")
    add("--output", metavar="FOLDER", help="where the outputs are copied")
    add("--webhook", metavar="ADDRESS")
    add("--email", action="append", default=[], metavar="ADDRESS")
    add("--notify-on", metavar="EVENTS", help="of failure,success,stopped (default failure)")
    add("--keep", type=int, metavar="N", help="ended runs that are kept")
    add("--after", action="append", default=[], metavar="JOB[:WHEN]", help="WHEN is success, failure or any")


def job_from(options: Any, notebook: str) -> Job:
    """The job that a command line asks for; names and paths are made absolute.

    Raises:
        PlanError: An option that cannot be meant; says which.
    """
    values: dict[str, Any] = _read_spec(options.spec) if options.spec else {}
    path = Path(notebook).expanduser().absolute()
    values["notebook"] = str(path)
    values["name"] = options.name or values.get("name") or path.stem
    if options.parameter:
        known = parameters_of(read_notebook(path))
        values["parameters"] = {**values.get("parameters", {}), **parse_values(options.parameter, known)}
    plain = ("cron", "at", "timezone", "cluster", "environment", "retries", "backoff", "timeout", "concurrency")
    for name in (*plain, "missed", "output", "keep"):
        if getattr(options, name) is not None:
            values[name] = getattr(options, name)
    if options.output:
        values["output"] = str(Path(options.output).expanduser().absolute())
    if options.outputs:
        values["outputs"] = tuple(options.outputs.split(","))
    if options.env:
        values["variables"] = {**values.get("variables", {}), **_variables(options.env)}
    asked = {"workers": options.workers, "gpus_per_worker": options.gpus, "gpu_share": options.gpu_share}
    asked["cpu_fallback"] = options.cpu_fallback or None
    if asked := {name: value for name, value in asked.items() if value is not None}:
        values["resources"] = {**values.get("resources", {}), **asked}
    if options.after:
        values["after"] = [_dependency(text) for text in options.after]
    job = Job.from_dict(values)
    if options.webhook or options.email:
        events = tuple((options.notify_on or "failure").split(","))
        made = Notification(options.webhook or "", tuple(options.email), events)
        job = Job.from_dict({**job.to_dict(), "notify": {"webhook": made.webhook, "email": made.email, "on": made.on}})
    elif options.notify_on:
        raise PlanError("--notify-on needs --webhook or --email")
    return job


def _read_spec(path: str) -> dict[str, Any]:
    try:
        return Job.from_json(Path(path).read_text()).to_dict()
    except OSError as error:
        raise PlanError(f"--spec {path!r} cannot be read: {error.strerror}") from error


def _variables(words: list[str]) -> dict[str, str]:
    made = {}
    for word in words:
        name, separator, value = word.partition("=")
        if not separator or not name:
            raise PlanError(f"--env is given as NAME=VALUE; got {word!r}")
        made[name] = value
    return made


def _dependency(text: str) -> dict[str, str]:
    name, _, when = text.partition(":")
    made = Dependency(name, when or "success")
    return {"job": made.job, "when": made.when}
