"""Stop, asked for by another process: told once, withdrawn by the next that carries the run out."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from paibook import stop_requests
from paibook.errors import PaibookError, RunCancelled
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook.session import Session

WAIT = 30


@pytest.fixture
def session(runs_folder: Path) -> Iterator[Session]:
    opened = Session("inline")
    yield opened
    opened.close()


def test_a_run_is_stopped_by_whoever_may_write_its_folder(session: Session) -> None:
    inside = threading.Event()
    plan = Plan("allreduce", Program("print('in', flush=True)\nwhile True: pass"), Resources(2), "inline")
    run = session.run(plan, on_event=lambda event: inside.set())
    assert inside.wait(WAIT)
    stop_requests.ask(run.directory)
    assert isinstance(run.exception(WAIT), RunCancelled)
    assert session.history.record(run.id).state == "cancelled"
    assert stat.S_IMODE((run.directory / stop_requests.STOP).stat().st_mode) == 0o600


def test_what_was_asked_of_an_earlier_process_is_forgotten(tmp_path: Path) -> None:
    stop_requests.ask(tmp_path)
    stop_requests.withdraw(tmp_path)
    stop_requests.withdraw(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_it_is_told_once_and_the_thread_ends(tmp_path: Path) -> None:
    told, ended = threading.Event(), threading.Event()
    stop_requests.watch(tmp_path, ended, told.set)
    stop_requests.ask(tmp_path)
    stop_requests.ask(tmp_path)
    assert told.wait(WAIT)
    for thread in threading.enumerate():
        if thread.name == f"paibook-stop-{tmp_path.name}":
            thread.join(WAIT)
            assert not thread.is_alive()


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(PaibookError, match=r"cannot ask for a stop in .*gone: No such file"):
        stop_requests.ask(tmp_path / "gone")
