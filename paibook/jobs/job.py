"""The job: a frozen, JSON-able value that says which notebook runs when, with what, and what happens around it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePath
from types import MappingProxyType
from typing import Any

from paibook.errors import PlanError
from paibook.jobs.schedule import check_cron, parse_moment, preview, zone
from paibook.jobs.secret_references import check_no_secret
from paibook.jobs.suggestions import nearest
from paibook.resources import Resources

OUTPUTS = ("ipynb", "html", "script", "pdf")
CONCURRENCY = ("forbid", "allow", "replace")
MISSED = ("skip", "once", "catch-up")
WHEN = ("success", "failure", "any")
EVENTS = ("success", "failure", "stopped")
LONGEST_NAME = 100


@dataclass(frozen=True)
class Notification:
    """Who hears of the end of a run.

    Attributes:
        webhook: An ``http(s)`` address that is sent the run's record as JSON, or empty.
        email: Addresses written to through ``PAIBOOK_SMTP`` (``host:port``).
        on: Ends that are told: of ``success``, ``failure``, ``stopped``.
    """

    webhook: str = ""
    email: tuple[str, ...] = ()
    on: tuple[str, ...] = ("failure",)

    def __post_init__(self) -> None:
        if self.webhook and not re.match(r"(https?://.|env:)", self.webhook):
            raise PlanError(f"webhook {self.webhook!r} must start with http:// or https:// (or be env:NAME)")
        for address in self.email:
            if not re.fullmatch(r"[^@\s]+@[^@\s]+", address):
                raise PlanError(f"e-mail address {address!r} is none")
        _one_of("notify on", self.on, EVENTS)


@dataclass(frozen=True)
class Dependency:
    """Another job that this one comes after: ``when`` it ended in ``success``, ``failure`` or ``any`` way."""

    job: str
    when: str = "success"

    def __post_init__(self) -> None:
        check_name(self.job)
        _one_of("after", (self.when,), WHEN)


@dataclass(frozen=True)
class Job:
    """A notebook that runs by itself.

    Attributes:
        name: How it is called; letters, digits, spaces and ``._-``, starting with a letter or digit.
        notebook: Path of the ``.ipynb`` file.
        parameters: Values for the names of the notebook's ``parameters`` cell, JSON-able. A secret is a reference,
            ``env:NAME`` or ``keyring:SERVICE/NAME``, which is looked up in the kernel and never stored.
        cron: When it runs, five fields or a shorthand such as ``@daily``; empty for none.
        at: One moment, ISO 8601, instead of ``cron``; empty for none.
        timezone: IANA name in which ``cron`` and ``at`` are read.
        resources: Workers, servers, cards and memory of its cluster. Cards of its own cluster are held as long as
            the kernel lives, and waited for while others hold them.
        cluster: Reference of the cluster, such as ``embedded`` or ``tcp://host:8786``.
        environment: A Python executable or the folder of a virtual environment whose kernel runs it; empty for the
            notebook's own kernel.
        variables: Environment variables of the kernel. Secrets as references.
        retries: How often a failed run is tried again.
        backoff: Seconds before the first retry; each further one waits twice as long.
        timeout: Seconds one attempt may take, or None.
        concurrency: What happens when it is due and still running: ``forbid`` leaves the new run out, ``allow`` runs
            both, ``replace`` stops the old one.
        missed: What happens to the fire times at which nothing was there to run it: ``skip``, ``once`` or ``catch-up``.
        grace: Seconds by which a run may be late before it counts as missed.
        outputs: What is written of each run: of ``ipynb``, ``html``, ``script``, ``pdf``.
        output: Folder to which the outputs are copied; empty for the run's own folder alone.
        notify: Who hears of its end.
        keep: How many ended runs are kept, or None for all.
        after: Jobs that it comes after.
    """

    name: str
    notebook: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    cron: str = ""
    at: str = ""
    timezone: str = "UTC"
    resources: Resources = Resources()
    cluster: str = "embedded"
    environment: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    retries: int = 0
    backoff: float = 30.0
    timeout: float | None = None
    concurrency: str = "forbid"
    missed: str = "once"
    grace: float = 60.0
    outputs: tuple[str, ...] = ("ipynb",)
    output: str = ""
    notify: Notification = field(default_factory=Notification)
    keep: int | None = None
    after: tuple[Dependency, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.name)
        if PurePath(self.notebook).suffix != ".ipynb" or "\0" in self.notebook:
            raise PlanError(f"notebook must be the path of an .ipynb file; got {self.notebook!r}")
        for name in ("parameters", "variables"):
            object.__setattr__(self, name, MappingProxyType(_frozen(name, getattr(self, name))))
        self._check_values()
        self._check_schedule()
        _one_of("outputs", self.outputs, OUTPUTS)
        _one_of("concurrency", (self.concurrency,), CONCURRENCY)
        _one_of("missed", (self.missed,), MISSED)
        if any(dependency.job == self.name for dependency in self.after):
            raise PlanError(f"job {self.name!r} cannot come after itself")

    def _check_values(self) -> None:
        for name, value in self.parameters.items():
            if not name.isidentifier():
                raise PlanError(f"parameter {name!r} is no name of Python")
            check_no_secret(name, value)
        for name, value in self.variables.items():
            if not isinstance(value, str):
                raise PlanError(f"environment variable {name} must be text; got {value!r}")
            check_no_secret(name, value)
        _whole("retries", self.retries, 0)
        if self.keep is not None:
            _whole("keep", self.keep, 1)
        _seconds("backoff", self.backoff, zero=True)
        _seconds("grace", self.grace, zero=True)
        if self.timeout is not None:
            _seconds("timeout", self.timeout, zero=False)

    def _check_schedule(self) -> None:
        zone(self.timezone)
        if self.cron and self.at:
            raise PlanError("a job has a cron line or one moment (at), not both")
        if self.cron:
            check_cron(self.cron, self.timezone)
        if self.at:
            parse_moment(self.at, self.timezone)

    @property
    def slug(self) -> str:
        """The name as other schedulers take it (an RFC 1123 label): lower case, digits, ``-``; at most 52 of them."""
        return slug_of(self.name)

    @property
    def own_cluster(self) -> bool:
        """Whether its workers run where it runs, not on a cluster elsewhere."""
        return self.cluster in ("embedded", "inline")

    def next_times(self, count: int = 5) -> list[datetime]:
        """The next fire times, in the job's time zone; empty where only the user or another job starts it."""
        if self.cron:
            return preview(self.cron, self.timezone, count=count)
        return [parse_moment(self.at, self.timezone).astimezone(zone(self.timezone))] if self.at else []

    def to_dict(self) -> dict[str, Any]:
        """The job as plain dicts, lists and scalars."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["parameters"], values["variables"] = dict(self.parameters), dict(self.variables)
        values["resources"] = dataclasses.asdict(self.resources)
        values["notify"] = dataclasses.asdict(self.notify)
        values["after"] = [dataclasses.asdict(dependency) for dependency in self.after]
        return json.loads(json.dumps(values))

    def to_json(self) -> str:
        """The job as JSON text; ``Job.from_json`` gives back an equal job."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Job:
        """Read a job back.

        Raises:
            PlanError: Not a job; names the field that is wrong.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise PlanError(f"a job has no field {name!r}{nearest(name, known)}")
        try:
            made = dict(values)
            if "resources" in made:
                made["resources"] = Resources(**made["resources"])
            if "notify" in made:
                notify = made["notify"]
                made["notify"] = Notification(notify["webhook"], tuple(notify["email"]), tuple(notify["on"]))
            made["after"] = tuple(Dependency(**entry) for entry in made.get("after", ()))
            made["outputs"] = tuple(made.get("outputs", ("ipynb",)))
            return cls(**made)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise PlanError(f"not a job: {error}") from error

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Read a job back from JSON text. Raises ``PlanError`` as ``from_dict``."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise PlanError(f"not a job: {error}") from error
        if not isinstance(values, dict):
            raise PlanError("not a job: it must be a JSON object")
        return cls.from_dict(values)

    def digest(self) -> str:
        """First 12 hex digits of the SHA-256 of the job's JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    def __hash__(self) -> int:
        return hash(self.to_json())


def slug_of(name: str) -> str:
    """The slug of the job of that name."""
    made = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:52].rstrip("-")
    return made or f"job-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def check_name(name: str) -> str:
    """A job's name, fit to be a file's.

    Raises:
        PlanError: It has slashes, ``..`` or other characters that a file name must not have; suggests one that fits.
    """
    if (
        len(name) <= LONGEST_NAME
        and re.fullmatch(r"[^\W_][\w .-]*", name)
        and ".." not in name
        and name == name.strip()
    ):
        return name
    fit = re.sub(r"\.\.+", ".", re.sub(r"[^\w .-]+", "-", name))[:LONGEST_NAME].strip(" .-_") or "nightly"
    raise PlanError(
        f"job name {name!r} must start with a letter or digit and have only letters, digits, spaces and ._- "
        f"(no '..', at most {LONGEST_NAME}); for example {fit!r}"
    )


def _frozen(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    try:
        made: dict[str, Any] = json.loads(json.dumps(dict(values), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise PlanError(f"{name} of a job must be JSON-able: {error}") from error
    return made


def _one_of(name: str, values: tuple[str, ...], known: tuple[str, ...]) -> None:
    for value in values:
        if value not in known:
            raise PlanError(f"{name} {value!r} is unknown{nearest(str(value), known)}; there are {', '.join(known)}")


def _whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise PlanError(f"{name} must be a whole number from {least} up; got {value!r}")


def _seconds(name: str, value: Any, zero: bool) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (0 if zero else 1e-9) <= value < 1e9:
        raise PlanError(f"{name} must be a number of seconds{'' if zero else ' above 0'}; got {value!r}")
