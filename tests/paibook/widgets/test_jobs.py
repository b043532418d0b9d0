"""The panel of jobs: what it shows of a store, and what its buttons do to real runs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from paibook.history import RunHistory
from paibook.jobs import actions
from paibook.jobs.job import Dependency, Job
from paibook.jobs.runner import spawn
from paibook.jobs.store import JobStore
from paibook.settings import settings
from paibook.widgets.jobs import JobsPanel, next_time, short, when

WAIT = 100
ROOT = Path(__file__).resolve().parents[3]
TRAINING = """%%pai_allreduce -n 1
import pathlib, time
step = 0
while not pathlib.Path("gate").exists():
    pai.log(step=step, loss=1 / (1 + step))
    step += 1
    time.sleep(0.01)
print("trained")"""


@pytest.fixture
def store(tmp_path: Path, runs_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobStore]:
    monkeypatch.setenv("PAIBOOK_JOBS", str(tmp_path / "jobs"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(str(ROOT / root) for root in (".", "magics", "kernels")))
    settings.cache_clear()
    yield JobStore(tmp_path / "jobs")
    settings.cache_clear()


@pytest.fixture
def panel(store: JobStore, runs_folder: Path) -> JobsPanel:
    return JobsPanel(store, RunHistory(runs_folder))


def notebook(path: Path, *cells: str) -> str:
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    made.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, path)
    return str(path)


def send(panel: JobsPanel, **content: Any) -> None:
    before = panel.version
    panel._receive(panel, content, [])
    until(lambda: panel.version > before)


def until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def test_when_a_job_runs_in_words() -> None:
    assert when(Job("a", "a.ipynb", cron="0 3 * * 1-5", timezone="Europe/Berlin")) == "0 3 * * 1-5 Europe/Berlin"
    assert when(Job("a", "a.ipynb", at="2030-01-31T03:00")) == "once UTC"
    assert when(Job("a", "a.ipynb", after=(Dependency("b"), Dependency("c", "any")))) == "after b, c"
    assert when(Job("a", "a.ipynb")) == "when asked"


def test_the_next_fire_time_and_how_long_that_is() -> None:
    job = Job("a", "a.ipynb", at="2030-01-31T03:00")
    assert next_time(job, 1896055200.0) == ("2030-01-31 03:00", "1 h")
    assert next_time(job, 1896058800.0) == ("", "")
    assert [short(seconds) for seconds in (200_000, 7300, 130, 5.5)] == ["2 d", "2 h", "2 min", "5 s"]


def test_an_empty_store(panel: JobsPanel) -> None:
    assert panel.state == {"jobs": [], "runs": [], "log": {}}
    assert panel.static()["text/plain"] == "0 jobs\n0 runs"


def test_jobs_with_their_latest_runs(store: JobStore, panel: JobsPanel, tmp_path: Path) -> None:
    path = notebook(tmp_path / "my fit.ipynb", "1")
    job = Job("fit", path, cron="@daily", concurrency="allow")
    store.save(job)
    runs = [store.add_run(job, "user", slot=str(number)) for number in range(8)]
    store.update(str(runs[0]), state="failed", started=1000.0, ended=1002.5, error="cell 1 failed", cell=0)
    by_hand = store.add_run(Job("0b9d-made-up", path), "user")
    panel.refresh()
    [kept] = panel.state["jobs"]
    assert (kept["name"], kept["notebook"], kept["when"]) == ("fit", "my fit.ipynb", "@daily UTC")
    assert len(kept["runs"]) == 6
    rows = {row["id"]: row for row in panel.state["runs"]}
    assert rows[by_hand]["job"] == "my fit"
    failed = rows[runs[0]]
    assert (failed["job"], failed["state"], failed["seconds"]) == ("fit", "failed", 2.5)
    assert (failed["can_stop"], failed["can_rerun"], failed["cell"]) == (False, True, "1")
    assert rows[runs[1]]["can_stop"]
    assert "cell 1 failed" in panel.static()["text/html"]


def test_what_cannot_be_done_is_said(panel: JobsPanel) -> None:
    send(panel, kind="log", id="none")
    assert "no run and no job with runs is called 'none'" in panel.problem
    send(panel, kind="run", id="none")
    assert "no job is called 'none'" in panel.problem
    panel._receive(panel, {"kind": "stop", "id": "none"}, [])
    until(lambda: panel._answer("refresh", {}) or "no run and no job with runs" in panel.problem)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_job_is_watched_stopped_and_run_again(store: JobStore, panel: JobsPanel, tmp_path: Path) -> None:
    job = Job("fit", notebook(tmp_path / "fit.ipynb", "print('begun')", TRAINING), cluster="inline")
    actions.schedule(store, job)
    [first] = actions.queue(store, job)
    process = spawn(store, first)

    def row(run_id: str) -> dict[str, Any]:
        panel.refresh()
        return next(row for row in panel.state["runs"] if row["id"] == run_id)

    until(lambda: len(row(first)["curve"]) > 5)
    seen = row(first)
    assert (seen["state"], seen["metric"], seen["cell"], seen["can_stop"]) == ("running", "loss", "2 of 2", True)
    until(lambda: row(first)["curve"] != seen["curve"])
    send(panel, kind="log", id=first)
    until(lambda: panel.refresh() or "begun" in panel.state["log"]["text"])
    attached = RunHistory(settings().runs).attach(first)
    until(lambda: len(attached.metrics) > 5)
    send(panel, kind="stop", id=first)
    until(lambda: row(first)["state"] == "stopped")
    process.wait(WAIT)
    assert attached.exception(WAIT) is not None
    (tmp_path / "gate").touch()
    send(panel, kind="rerun", id=first)
    again = panel.state["runs"][0]["id"]
    assert again != first
    until(lambda: row(again)["state"] == "done")
    assert panel.state["log"]["id"] == first
    send(panel, kind="log", id=again)
    assert "trained" in panel.state["log"]["text"]
    assert "▁" in panel.static()["text/plain"]
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "paibook-job"])
