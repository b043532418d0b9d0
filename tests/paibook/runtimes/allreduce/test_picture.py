"""The picture of an all-reduce cell: pure, and of real ranks of which one comes late, or is killed."""

from __future__ import annotations

import json
import os
import signal
import threading
from typing import Any

import pytest

from paibook.errors import RankLost
from paibook.runtimes.allreduce.picture import picture
from paibook.runtimes.contract import RunContext

HOSTS = [("a", [0, 1, 2])]


def told(**changes: Any) -> dict[str, Any]:
    words = {
        "line": 3, "call": None, "number": 0, "seconds": 0.0, "awaited": None, "count": 1, "torch": 0,
        "operations": {"Allreduce": [1, 400]}, "sent": [], "written": 400, "read": 800, "handed": 0,
        "library_seconds": 0.0, "waited": 0.5,
    }  # fmt: skip
    return {**words, **changes}


def inside(number: int = 2, seconds: float = 1.0, **changes: Any) -> dict[str, Any]:
    words = told(call="Allreduce of 10 float32 (SUM)", number=number, seconds=seconds, count=number)
    return {**words, **changes}


def states(drawn: dict[str, Any]) -> list[str]:
    return [rank["state"] for rank in drawn["ranks"]]


class TestPicture:
    def test_ranks_in_a_collective_wait_for_those_that_have_not_reached_it(self) -> None:
        drawn = picture("shared", HOSTS, {0: inside(), 1: told(line=7), 2: inside()}, {}, 4.0)
        assert drawn["waits"] == [[0, 1], [2, 1]]
        assert states(drawn) == ["waiting", "computing", "waiting"]
        assert drawn["lines"] == {"rank 0": 3, "rank 1": 7, "rank 2": 3}
        assert drawn["operations"] == {"Allreduce": {"count": 1, "bytes": 400}}
        assert json.loads(json.dumps(drawn)) == drawn

    def test_who_has_said_nothing_computes_and_is_waited_for(self) -> None:
        drawn = picture("shared", HOSTS, {0: inside(number=1)}, {}, 4.0)
        assert drawn["waits"] == [[0, 1], [0, 2]]
        assert states(drawn) == ["waiting", "computing", "computing"]

    def test_a_short_wait_is_none_yet(self) -> None:
        drawn = picture("shared", HOSTS, {0: inside(seconds=0.1), 1: told(), 2: told()}, {}, 4.0)
        assert drawn["waits"] == []
        assert states(drawn) == ["communicating", "computing", "computing"]

    def test_an_operation_that_all_have_reached_is_no_wait(self) -> None:
        drawn = picture("gloo", HOSTS, dict.fromkeys(range(3), inside()), {}, 4.0)
        assert drawn["waits"] == []
        assert set(states(drawn)) == {"communicating"}

    def test_a_receive_waits_for_its_sender_or_for_anyone(self) -> None:
        receive = told(call="recv", seconds=2.0, awaited=2)
        anyone = told(call="recv", seconds=2.0, awaited=-1)
        drawn = picture("shared", HOSTS, {0: receive, 1: anyone, 2: told()}, {}, 4.0)
        assert drawn["waits"] == [[0, 2]]
        assert states(drawn) == ["waiting", "waiting", "computing"]

    def test_what_ranks_stopped_in_when_one_was_lost(self) -> None:
        gone = {0: "stopped", 1: "lost", 2: "ended"}
        drawn = picture("shared", HOSTS, {0: inside(seconds=0.0), 1: told(), 2: told(count=2)}, gone, 4.0)
        assert drawn["waits"] == [[0, 1]]
        assert states(drawn) == ["stopped", "lost", "ended"]
        assert drawn["lines"] == {}

    def test_links_are_messages_between_two_ranks(self) -> None:
        senders = {0: told(sent=[[1, 2, 90], [2, 1, 5]]), 1: told(), 2: told(sent=[[0, 1, 7]])}
        drawn = picture("shared", HOSTS, senders, {}, 4.0)
        assert drawn["links"] == [[0, 1, 2, 90], [0, 2, 1, 5], [2, 0, 1, 7]]
        assert [(rank["messages"], rank["sent"]) for rank in drawn["ranks"]] == [(3, 95), (0, 0), (1, 7)]


class Watched:
    """Runs a cell, keeps its pictures, and lets one rank go on when a picture is as it should be."""

    def __init__(self, bench: Any, tmp_path: Any) -> None:
        self.bench, self.gate = bench, tmp_path / "gate"
        self.pictures: list[dict[str, Any]] = []
        self.summary: dict[str, Any] | None = None

    def run(self, source: str, wanted: Any, then: Any, **options: Any) -> Any:
        run, context, _ = self.bench.start(source, variables={"gate": str(self.gate)}, push=("gate",), **options)
        self._watch(context, wanted, then)
        return run()

    def _watch(self, context: RunContext, wanted: Any, then: Any) -> None:
        done = threading.Event()

        def progress(told: Any) -> None:
            if told.picture is None:
                return
            self.pictures.append(told.picture)
            if wanted(told.picture) and not done.is_set():
                done.set()
                then()

        def summarise(summary: dict[str, Any]) -> None:
            self.summary = summary

        context.progress, context.summarise = progress, summarise


STRAGGLER = """
import os, time
import numpy as np
comm.send(bytes(1000), (rank + 1) % world_size)
comm.recv(source=(rank - 1) % world_size)
values = np.ones(100, np.float32)
comm.Allreduce(comm.IN_PLACE, values)
while rank == 1 and not os.path.exists(gate):
    time.sleep(0.01)
comm.Allreduce(comm.IN_PLACE, values)
"""


@pytest.mark.parametrize("bench", ["inline", pytest.param("embedded", marks=pytest.mark.slow)], indirect=True)
def test_the_picture_names_who_waits_for_whom(bench: Any, tmp_path: Any) -> None:
    watched = Watched(bench, tmp_path)
    watched.run(STRAGGLER, lambda seen: seen["waits"] == [[0, 1], [2, 1]], watched.gate.touch, workers=3)
    seen = next(seen for seen in watched.pictures if seen["waits"] == [[0, 1], [2, 1]])
    assert states(seen) == ["waiting", "computing", "waiting"]
    assert seen["lines"]["rank 0"] == 9
    assert seen["lines"]["rank 1"] in (7, 8)
    assert seen["ranks"][0]["call"] == "Allreduce of 100 float32 (SUM)"
    summary = watched.summary
    assert summary is not None
    assert states(summary) == ["ended"] * 3
    assert summary["operations"]["Allreduce"] == {"count": 2, "bytes": 800}
    assert [link[:3] for link in summary["links"]] == [[0, 1, 1], [1, 2, 1], [2, 0, 1]]
    assert all(1000 < size < 1200 for *_, size in summary["links"])
    assert summary["ranks"][0]["written"] == 800
    assert summary["ranks"][0]["waited"] > 0.25  # a shorter wait would not have been drawn


def test_a_cell_that_does_not_communicate_has_no_picture(inline: Any, tmp_path: Any) -> None:
    watched = Watched(inline, tmp_path)
    watched.run("1 + 1", lambda seen: False, lambda: None)
    assert watched.pictures == []
    assert watched.summary is None


@pytest.mark.slow
def test_the_picture_shows_a_rank_that_was_killed(embedded: Any, tmp_path: Any) -> None:
    watched = Watched(embedded, tmp_path)
    pid = tmp_path / "pid"
    source = f"if rank == 1: open({str(pid)!r}, 'w').write(str(__import__('os').getpid()))\n" + STRAGGLER

    def kill() -> None:
        os.kill(int(pid.read_text()), signal.SIGKILL)

    with pytest.raises(RankLost):
        watched.run(source, lambda seen: len(seen["waits"]) == 2, kill, workers=3)
    last = watched.pictures[-1]
    assert states(last) == ["stopped", "lost", "stopped"]
    assert last["waits"] == [[0, 1], [2, 1]]
    assert watched.summary is None


@pytest.fixture
def bench(request: Any) -> Any:
    """The bench of the cluster named."""
    return request.getfixturevalue(request.param)
