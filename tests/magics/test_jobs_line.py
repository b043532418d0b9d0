"""``%pai_jobs`` shows the panel of jobs; in a terminal, as text."""

from __future__ import annotations

import pytest

from paibook.errors import PlanError
from paibook.jobs.job import Job
from paibook.jobs.store import JobStore
from paibook.session import Session
from paibook.settings import settings
from paibook_magics.jobs_line import pai_jobs
from paibook_magics.lines import Lines
from paibook_magics.schedule_help import JOBS_HELP


@pytest.fixture
def lines(tmp_path, runs_folder, monkeypatch):
    monkeypatch.setenv("PAIBOOK_JOBS", str(tmp_path / "jobs"))
    settings.cache_clear()
    session = Session("inline")
    yield Lines(session, {})
    session.close()
    settings.cache_clear()


def test_jobs_and_runs_are_listed(lines, capsys) -> None:
    store = JobStore(settings().jobs)
    job = Job("nightly fit", "fit.ipynb", cron="0 3 * * *", concurrency="allow")
    store.save(job)
    made = [store.add_run(job, "user", slot=str(number)) for number in range(3)]
    pai_jobs(lines, "-n 2")
    shown = capsys.readouterr().out
    assert "nightly fit  fit.ipynb  0 3 * * * UTC" in shown
    assert "2 runs" in shown
    assert sum(run_id in shown for run_id in made) == 2


@pytest.mark.parametrize("line", ["-n", "-n 0", "-n x", "fit", "'open"])
def test_a_line_that_is_not_understood_shows_the_help(lines, line) -> None:
    with pytest.raises(PlanError) as caught:
        pai_jobs(lines, line)
    assert str(caught.value) == f"%pai_jobs {line}: not understood\n\n{JOBS_HELP}"
