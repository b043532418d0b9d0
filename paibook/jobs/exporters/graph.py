"""A job with all the jobs that it comes after, for targets whose tasks depend on tasks."""

from __future__ import annotations

from collections import Counter

from paibook.errors import PlanError
from paibook.jobs.exporters.request import ExportOptions
from paibook.jobs.job import Job
from paibook.jobs.suggestions import nearest


def with_predecessors(job: Job, options: ExportOptions) -> list[Job]:
    """The job and all that it comes after, each behind its own predecessors; the job itself last.

    Raises:
        PlanError: A predecessor is unknown, comes after itself, or is called as another is in the target.
    """
    if "after" in options.without:
        return [job]
    order: dict[str, Job] = {}
    _visit(job, options, order, [])
    made = list(order.values())
    slugs = Counter(one.slug for one in made)
    for one in made:
        if slugs[one.slug] > 1:
            raise PlanError(f"job {one.name!r} and another are both called {one.slug!r} there; rename one of them")
    return made


def first_of(jobs: list[Job]) -> Job:
    """The job whose schedule is that of them all: one that comes after none.

    Raises:
        PlanError: The first ones are due at different times, or one that comes after others has a schedule of its own.
    """
    firsts = [job for job in jobs if not job.after] or jobs
    for job in jobs:
        if job not in firsts and (job.cron or job.at):
            raise PlanError(
                f"job {job.name!r} comes after others and has a schedule of its own; together they are started by the "
                "schedule of the first: take one of them away"
            )
        if job in firsts and _due(job) != _due(firsts[0]):
            raise PlanError(
                f"jobs {firsts[0].name!r} and {job.name!r} come first and differ in cron, at, timezone, missed or "
                "concurrency; together they have one schedule: give both the same"
            )
    return firsts[0]


def _due(job: Job) -> tuple[str, ...]:
    return (job.cron, job.at, job.timezone, job.missed, job.concurrency)


def _visit(job: Job, options: ExportOptions, order: dict[str, Job], path: list[str]) -> None:
    if job.name in path:
        raise PlanError(f"job {job.name!r} comes after itself, by way of {', '.join(path)}")
    for dependency in job.after:
        if dependency.job not in options.known:
            raise PlanError(
                f"job {job.name!r} comes after {dependency.job!r}, which is not known here"
                f"{nearest(dependency.job, options.known)}; make that job first, or leave it out with --without after"
            )
        if dependency.job not in order:
            _visit(options.known[dependency.job], options, order, [*path, job.name])
    order[job.name] = job
