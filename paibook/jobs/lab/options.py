"""The options of the dialog's form (``runtime_environment_parameters`` of a request), and what each is of a job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jupyter_scheduler.exceptions import SchedulerError

from paibook.errors import PlanError
from paibook.jobs.job import CONCURRENCY, MISSED, Notification
from paibook.jobs.suggestions import nearest
from paibook.resources import Resources

Values = Mapping[str, Any]


def job_options(given: Values | None) -> dict[str, Any]:
    """Arguments of ``Job`` that the form's options stand for; an empty field stands for the job's own default.

    Raises:
        PlanError: An option is unknown or is not of its kind; names it.
    """
    texts = {name: str(value).strip() for name, value in (given or {}).items() if str(value).strip()}
    for name in texts:
        if name not in OPTIONS:
            raise PlanError(f"there is no option {name!r}{nearest(name, OPTIONS)}; there are {', '.join(OPTIONS)}")
    values = {name: OPTIONS[name](name, text) for name, text in texts.items()}
    resources = {field: values.pop(name) for name, field in RESOURCES.items() if name in values}
    if resources:
        values["resources"] = Resources(**resources)
    told = {field: values.pop(name) for name, field in TOLD.items() if name in values}
    if told.keys() == {"on"}:
        raise PlanError("notify_on needs a webhook or an email")
    if told:
        values["notify"] = Notification(**told)
    return values


def refuse(check: Callable[[], Any]) -> None:
    """Make what is wrong with a request an error that the dialog shows.

    Raises:
        SchedulerError: ``check`` raised a ``PlanError``.
    """
    try:
        check()
    except PlanError as error:
        raise SchedulerError(str(error)) from error


def _whole(name: str, text: str) -> int:
    if not text.isdecimal():
        raise PlanError(f"{name} must be a whole number, 0 or more; got {text!r}")
    return int(text)


def _seconds(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise PlanError(f"{name} must be a number of seconds; got {text!r}") from None


def _text(_name: str, text: str) -> str:
    return text


def _words(_name: str, text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def _one_of(known: tuple[str, ...]) -> Callable[[str, str], str]:
    def check(name: str, text: str) -> str:
        if text not in known:
            raise PlanError(f"{name} {text!r} is unknown{nearest(text, known)}; there are {', '.join(known)}")
        return text

    return check


def _environment(_name: str, text: str) -> str:
    return str(Path(text).expanduser())


OPTIONS: dict[str, Callable[[str, str], Any]] = {
    "cluster": _text,
    "workers": _whole,
    "gpus": _whole,
    "environment": _environment,
    "timeout": _seconds,
    "retries": _whole,
    "backoff": _seconds,
    "concurrency": _one_of(CONCURRENCY),
    "missed": _one_of(MISSED),
    "grace": _seconds,
    "webhook": _text,
    "email": _words,
    "notify_on": _words,
}
RESOURCES = {"workers": "workers", "gpus": "gpus_per_worker"}
TOLD = {"webhook": "webhook", "email": "email", "notify_on": "on"}
