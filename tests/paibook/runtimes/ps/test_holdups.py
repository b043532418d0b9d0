"""A worker that never clocks: the others say for whom they wait."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from paibook.clusters.contract import Event
from paibook.runtimes.ps import board
from paibook.runtimes.ps.consistency import VectorClock
from paibook.runtimes.ps.holdups import Holdup, find

CELL = """
    def train(ps):
        w = ps.table("w", shape=4, optimizer=pai.SGD(0.1))
        for epoch in ps.clocks(8):
            if rank == 0 and epoch in (3, 5):
                gates[epoch].wait(30)
            w.push(w.pull())
"""


def test_the_slowest_of_those_that_do_not_wait_is_the_holder() -> None:
    vector = VectorClock((4, 3, 7, 3))
    assert find(vector, {}, [0.0] * 4, 9.0) is None
    holdup = find(vector, {2: 7}, [0.0, 5.0, 0.0, 2.0], 9.0)
    assert holdup == Holdup(((2, 7),), 3, 3, 7.0)
    assert Holdup.from_wire(holdup.to_wire()) == holdup
    assert find(vector.retire(1).retire(3), {2: 7}, [0.0] * 4, 9.0) == Holdup(((2, 7),), 0, 4, 9.0)
    assert find(VectorClock((7,)), {0: 7}, [0.0], 9.0) is None


@pytest.mark.parametrize("consistency", ["bsp", "ssp"])
def test_who_holds_whom_is_said_once(bench: Any, monkeypatch: pytest.MonkeyPatch, consistency: str) -> None:
    monkeypatch.setattr(board, "HOLD_SECONDS", 0.2)
    gates = {3: threading.Event(), 5: threading.Event()}
    reports: list[Holdup] = []
    to_wire = Holdup.to_wire

    def spy(holdup: Holdup) -> dict[str, Any]:
        reports.append(holdup)
        if len(holdup.waiting) == 2:
            gates[holdup.clock].set()
        return to_wire(holdup)

    monkeypatch.setattr(Holdup, "to_wire", spy)
    told: list[Event] = []
    bench.run(CELL, bench.context(told.append, gates=gates), consistency=consistency)
    lines = [event.data for event in told if event.kind == "stderr"]
    assert len(lines) == 1
    assert "for worker 0, which is at clock 3 and has not called ps.clock() for 0 s" in lines[0]
    assert {(holdup.holder, holdup.clock) for holdup in reports} == {(0, 3), (0, 5)}  # the second goes without saying
