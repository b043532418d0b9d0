"""The line magic ``%pai_schedule``: the notebook as a job, with the options of ``paibook job add``."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from paibook.errors import PlanError
from paibook.jobs import actions
from paibook.jobs.cli_options import add_job_options, job_from
from paibook.jobs.store import JobStore
from paibook.settings import settings
from paibook_magics.lines import table, words
from paibook_magics.schedule_help import SCHEDULE_HELP


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise PlanError(f"%pai_schedule: {message}\n\n{SCHEDULE_HELP}")


def pai_schedule(line: str) -> Any:
    """Run ``%pai_schedule LINE``.

    Raises:
        PlanError: The line or the job cannot be meant.
        PaibookError: The job is there already, or comes after one that is not.
    """
    store = JobStore(settings().jobs)
    match words(line):
        case []:
            rows = [_row(store, job) for job in store.jobs()]
            if not rows:
                print("no jobs yet")
            return table(rows) if rows else None
        case ["delete", *rest] if rest:
            name = " ".join(rest)
            store.delete(name)
            print(f"deleted {name}")
            return None
        case found:
            options = _parser().parse_args(found)
    job = job_from(options, options.notebook)
    actions.schedule(store, job, options.replace)
    print(f"job {job.name!r} is kept; `paibook job serve` runs it")
    for moment in job.next_times():
        print(f"  {moment.isoformat(timespec='minutes')}")
    return None


def _parser() -> argparse.ArgumentParser:
    made = _Parser(prog="%pai_schedule", add_help=False)
    made.add_argument("notebook")
    add_job_options(made)
    made.add_argument("--replace", action="store_true")
    return made


def _row(store: JobStore, job: Any) -> dict[str, str]:
    latest = next(iter(store.runs(job.name)), None)
    following = next(iter(job.next_times(1)), None)
    when = following.isoformat(timespec="minutes") if following else ""
    return {"job": job.name, "notebook": job.notebook, "next": when, "latest": latest.state if latest else ""}
