"""The line magic ``%pai_jobs``: the panel of scheduled jobs and their runs."""

from __future__ import annotations

from paibook.errors import PlanError
from paibook.jobs.store import JobStore
from paibook.settings import settings
from paibook.widgets.jobs import JobsPanel
from paibook_magics.lines import Lines, words
from paibook_magics.schedule_help import JOBS_HELP


def pai_jobs(lines: Lines, line: str) -> None:
    """Run ``%pai_jobs LINE``.

    Raises:
        PlanError: The line cannot be meant.
    """
    match words(line):
        case []:
            count = 12
        case ["-n", text] if text.isdecimal() and int(text):
            count = int(text)
        case _:
            raise PlanError(f"%pai_jobs {line}: not understood\n\n{JOBS_HELP}")
    lines.show_panel(JobsPanel(JobStore(settings().jobs), lines.session.history, count))
