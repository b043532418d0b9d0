"""What an export is asked for beside the job, and how it says that a target cannot do it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from paibook.errors import PlanError
from paibook.jobs.job import Job
from paibook.jobs.suggestions import nearest

# What a user may leave out where a target cannot express it.
LEAVABLE = ("timezone", "schedule", "missed", "concurrency", "after")


@dataclass(frozen=True)
class ExportOptions:
    """How files for a target are made.

    Attributes:
        folder: Where the files will lie; targets on this host refer to them there.
        without: Fields of the job that may be left out: of ``timezone``, ``schedule``, ``missed``, ``concurrency``,
            ``after``.
        image: The container image of targets that need one, such as ``registry.example/me/job:1``.
        target_zone: IANA name of the zone in which the target's clock reads cron lines; empty for the usual one.
        python: The interpreter that has paibook, for targets on this host.
        packages: ``name==version`` lines of the lock; empty for what is installed here.
        known: Jobs by their names, for those that the job comes after.
        now: From when on a target that catches up does so; aware.
    """

    folder: Path = field(default_factory=Path.cwd)
    without: frozenset[str] = frozenset()
    image: str = ""
    target_zone: str = ""
    python: str = sys.executable
    packages: tuple[str, ...] = ()
    known: Mapping[str, Job] = field(default_factory=dict)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", self.folder.expanduser().absolute())
        for name in self.without:
            if name not in LEAVABLE:
                known = ", ".join(LEAVABLE)
                raise PlanError(f"--without {name!r} is unknown{nearest(name, LEAVABLE)}; there are {known}")
        if any(character.isspace() for character in self.image):
            raise PlanError(f"--image {self.image!r} has white space; it is given as REGISTRY/NAME:TAG")


def need(possible: bool, job: Job, options: ExportOptions, name: str, why: str, instead: str) -> None:
    """Refuse what a target cannot express, unless the user leaves it out.

    Raises:
        PlanError: Says what cannot be expressed, and what to do.
    """
    if not possible and name not in options.without:
        raise PlanError(f"job {job.name!r}: {why}; {instead}, or leave it out with --without {name}")


def need_no_predecessors(job: Job, options: ExportOptions, target: str) -> None:
    """Refuse a job that comes after others."""
    names = ", ".join(dependency.job for dependency in job.after)
    why = f"{target} cannot start it after another job ({names})"
    need(not job.after, job, options, "after", why, "run it by `paibook job serve`, or export it to airflow or argo")


def need_cron(job: Job, options: ExportOptions, target: str) -> None:
    """Refuse a job without a cron line; those that only another job starts included."""
    if job.at:
        why = f"{target} repeats, and cannot run a job once at {job.at}"
        need(False, job, options, "schedule", why, "export it to systemd, slurm or airflow, which can")
    elif not job.cron:
        raise PlanError(f"job {job.name!r} has no schedule, which {target} needs; give it one with --cron '0 3 * * *'")
