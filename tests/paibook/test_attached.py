"""Runs followed from their folders: those of this process, of another, and those that have ended."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paibook.attached import AttachedRun
from paibook.clusters.contract import Event
from paibook.errors import PaibookError, RunCancelled, RunError
from paibook.history import RunHistory
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook.run import Run
from paibook.session import Session
from paibook.settings import settings

WAIT = 60
ROOT = Path(__file__).resolve().parents[2]
STEPS = """
import threading
for step in range(3):
    pai.log(step=step, loss=1 / (1 + step))
print("three steps")
go.wait()
pai.log(step=3, loss=0.1)
print("the end")
"""


@pytest.fixture
def session(runs_folder: Path) -> Iterator[Session]:
    opened = Session("inline", RunHistory(runs_folder))
    yield opened
    opened.close()


def until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def start(session: Session, source: str) -> Run:
    return session.run(Plan("allreduce", Program(source), Resources(1), "inline", name="steps"))


def ended(session: Session, source: str) -> str:
    run = start(session, source)
    run.exception(WAIT)
    return run.id


def test_a_run_is_followed_while_it_goes_on(session: Session, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    waits = f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.01)"
    run = start(session, STEPS.replace("go.wait()", waits))
    events: list[Event] = []
    attached = session.history.attach(run.id, events.append)
    until(lambda: len(attached.metrics) == 3)
    until(lambda: any("three steps" in str(event.data) for event in events))
    assert (attached.state, attached.done()) == ("running", False)
    assert attached.metrics.last("loss") == 1 / 3
    note = attached.note("half way")
    assert attached.metrics.notes == (note,)
    gate.touch()
    attached.result(WAIT)
    assert (attached.state, attached.metrics.last("loss")) == ("done", 0.1)
    assert "".join(str(event.data) for event in events if event.kind == "stdout") == "three steps\nthe end\n"
    assert session.history.metrics(run.id).notes == (note,)
    until(lambda: not any(thread.name == f"paibook-attached-{run.id}" for thread in threading.enumerate()))


def test_of_a_run_that_has_ended_the_whole_is_shown(session: Session) -> None:
    run_id = ended(session, "for step in range(50): pai.log(step=step, loss=1.0 * step)\nprint('said')\n41 + 1")
    events: list[Event] = []
    attached = session.history.attach(run_id[-4:], events.append)
    asyncio.run(_awaited(attached))
    assert (len(attached.metrics), attached.metrics.run, attached.state) == (50, run_id, "done")
    assert ("result", {"text/plain": "42"}) in [(event.kind, event.data) for event in events]
    assert attached.stdout == "[worker 0] said\n"


async def _awaited(attached: AttachedRun) -> None:
    await attached


def test_a_failed_and_a_stopped_run_raise_as_theirs_did(session: Session) -> None:
    failed = session.history.attach(ended(session, "1 / 0"))
    with pytest.raises(RunError, match=r"failed: .*division by zero"):
        failed.result(WAIT)
    run = start(session, "import time\nwhile True: time.sleep(0.01)")
    attached = session.history.attach(run.id)
    run.cancel()
    with pytest.raises(RunCancelled):
        attached.result(WAIT)
    attached.cancel()  # has ended: nothing to do


def test_whoever_follows_a_run_may_stop_it(session: Session) -> None:
    run = start(session, "import time\nwhile True: time.sleep(0.01)")
    watching = session.history.attach(run.id)
    watching.detach()
    with pytest.raises(PaibookError, match="followed no longer"):
        watching.result(WAIT)
    assert not run.done()
    steering = session.history.attach(run.id)
    steering.cancel()
    assert isinstance(steering.exception(WAIT), RunCancelled)


def test_a_folder_that_is_taken_away_ends_the_following(session: Session) -> None:
    run = start(session, "import time\nwhile True: time.sleep(0.01)")
    attached = session.history.attach(run.id)
    (run.directory / "run.json").unlink()
    with pytest.raises(PaibookError, match="can no longer be followed"):
        attached.result(WAIT)
    run.cancel()
    run.exception(WAIT)


def test_a_run_that_is_not_there_is_named(session: Session) -> None:
    with pytest.raises(PaibookError, match="no run is called 'none'"):
        session.history.attach("none")


def test_the_run_of_a_job_finds_the_latest_run_of_its_notebook(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    since = time.time()
    other = ended(session, "1")
    monkeypatch.setenv("PAIBOOK_JOB_RUN", "20260101-000000-fit-abcdef")
    settings.cache_clear()
    started = {start(session, "1").id for _ in range(2)}
    [(job, record)] = session.history.of_jobs(since).items()
    assert (job, record.id in started) == ("20260101-000000-fit-abcdef", True)
    for name in ("abcdef", job):
        assert session.history.find_any(name).id in started
    assert session.history.find_any(other).id == other
    with pytest.raises(PaibookError, match="no run is called"):
        session.history.find_any("")


SCRIPT = """
import sys, time
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook.session import Session
session = Session("inline")
source = "import time\\nfor step in range(100_000):\\n    pai.log(step=step, loss=1.0 / (1 + step)); time.sleep(0.01)"
run = session.run(Plan("allreduce", Program(source), Resources(1), "inline"))
print(run.id, flush=True)
run.result()
"""


@pytest.mark.slow
def test_a_run_of_another_process_is_followed_until_that_is_killed(runs_folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True, env=environment) as driver:
        try:
            assert driver.stdout is not None
            run_id = driver.stdout.readline().strip()
            attached = RunHistory(runs_folder).attach(run_id)
            until(lambda: len(attached.metrics) > 5)
            seen = len(attached.metrics)
            until(lambda: len(attached.metrics) > seen)
            assert attached.state == "running"
        finally:
            driver.kill()
            driver.wait()
        with pytest.raises(RunError, match="its notebook ended before the run did"):
            attached.result(WAIT)
        assert attached.state == "failed"
