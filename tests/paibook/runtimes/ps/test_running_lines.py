"""At which line of the cell a worker is, and the picture that says so."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from paibook.clusters.contract import Event
from paibook.history import RunHistory
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook.runtimes.ps import running_lines as module
from paibook.runtimes.ps.picture import planned_picture
from paibook.runtimes.ps.running_lines import RunningLines, line_of, running_lines
from paibook.session import Session

TRAIN = """
import pathlib, time
def train(ps):
    w = ps.table("w", shape=(4,), optimizer=pai.SGD(lr=0.1))
    w.push([1.0] * 4)
    ps.clock()
    while rank == 1 and not pathlib.Path(GO).exists():
        time.sleep(0.01)
"""


class Place:
    """Takes what a worker emits."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.came = threading.Event()

    def emit(self, kind: str, data: Any) -> None:
        self.told.append((kind, data))
        self.came.set()


def test_the_innermost_line_of_the_cell_is_told_and_the_watch_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    place = Place()
    cell = compile("def wait(came):\n    def inner():\n        came.wait(30)\n    inner()", "Cell In[1]", "exec")
    names: dict[str, Any] = {}
    exec(cell, names)
    with running_lines(place, "Cell In[1]"):  # type: ignore[arg-type]
        names["wait"](place.came)
    assert place.told == [("progress", {"line": 3})]
    assert "paibook-lines" not in {thread.name for thread in threading.enumerate()}


def test_outside_the_cell_there_is_no_line() -> None:
    assert line_of(sys._getframe(), "Cell In[1]") is None
    assert line_of(None, "Cell In[1]") is None


def test_other_events_are_passed_on() -> None:
    seen: list[Event] = []
    lines = RunningLines(seen.append)
    printed = Event("stdout", "worker", 0, "hello\n")
    for event in (Event("progress", "worker", 1, {"line": 7}), printed, Event("progress", "worker", 0, {"other": 1})):
        lines.on_event(event)
    assert seen == [printed]
    assert lines.lines == {"worker 1": 7}


def test_a_worker_that_waits_is_seen_at_its_line_and_leaves_it_when_it_ends(tmp_path: Path) -> None:
    session = Session("inline", RunHistory(tmp_path / "runs"))
    go = tmp_path / "go"
    seen = threading.Event()

    def look(progress: Any) -> None:
        if progress.picture and progress.picture["lines"].get("worker 1") in (7, 8):
            seen.set()

    try:
        program = Program(TRAIN.replace("GO", repr(str(go))), "Cell In[5]")
        run = session.run(Plan("ps", program, Resources(2, 1), "inline", options={}), on_progress=look)
        assert seen.wait(60)
        go.touch()
        run.result(60)
        frames = run.pictures.read(number for number, _ in run.pictures.times)
    finally:
        session.close()
    assert frames[-1].picture["lines"] == {}
    assert any(frame.picture["lines"].get("worker 1") in (7, 8) for frame in frames)
    assert run.stdout == ""


@pytest.mark.parametrize(("servers", "replicas"), [(1, 0), (3, 1), (4, 3)])
def test_a_plan_shows_where_partitions_and_copies_lie(servers: int, replicas: int) -> None:
    drawn = planned_picture(2, servers, replicas, 0)
    assert [worker["clock"] for worker in drawn["workers"]] == [0, 0]
    assert [server["primary"] for server in drawn["servers"]] == [[rank] for rank in range(servers)]
    assert all(len(server["copies"]) == replicas for server in drawn["servers"])
    assert drawn["planned"]
