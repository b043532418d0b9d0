"""When training ends: patience, and the cell's own should_stop(status)."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from paibook.comms.wire import listen, new_token
from paibook.errors import ProgramError, UserCodeError
from paibook.program import Program
from paibook.runtimes.ps.consistency import Consistency
from paibook.runtimes.ps.coordinator import Coordinator
from paibook.runtimes.ps.messages import CoordinatorJob, Scene
from paibook.runtimes.ps.stopping import Status, StopRule
from paibook.runtimes.ps.until import Until


def decided_at(rule: StopRule, losses: list[float | None]) -> tuple[int, str] | None:
    for epoch, loss in enumerate(losses, 1):
        reason = rule.reason(Status(epoch, 0.5, {} if loss is None else {"loss": loss}))
        if reason is not None:
            return epoch, reason
    return None


def test_patience_counts_the_clocks_since_the_best() -> None:
    losses = [None, 3.0, 2.0, 2.5, 2.0, 1.0, 1.1, float("nan"), 1.0, 0.5]
    text = "since_best(loss) >= 3"
    assert decided_at(StopRule(Until.parse(text)), losses) == (9, f"--until {text} (loss = 1, since_best(loss) = 3)")
    assert decided_at(StopRule(Until.parse("since_best(loss) >= 4")), losses) is None
    assert decided_at(StopRule(Until.parse("since_best(-loss) > 1")), [1.0, 5.0, 4.0, 4.5]) == (
        4,
        "--until since_best(-loss) > 1 (loss = 4.5, since_best(-loss) = 2)",
    )


def test_a_new_coordinator_remembers_the_best(tmp_path: Path) -> None:
    scene = Scene("r", Program(""), {}, {}, 1, 1, Consistency("bsp"), new_token())
    until, log = "since_best(loss) >= 3", str(tmp_path / "coordinator.jsonl")
    job = CoordinatorJob(scene, until=until, watched=("loss",), log=log)

    def reason_after(*losses: float, first: int) -> str | None:
        with listen() as listener:
            coordinator = Coordinator(job, listener)
            for clock, loss in enumerate(losses, first):
                coordinator.board.advance(0, 0, clock, {"loss": loss})
            coordinator.end()
        return coordinator.board.reason

    assert reason_after(1.0, 0.5, 0.75, first=1) is None
    assert reason_after(0.75, 0.625, first=3) is None
    assert reason_after(0.625, 0.75, first=4) == "--until since_best(loss) >= 3 (loss = 0.75, since_best(loss) = 3)"


def test_a_function_decides_and_may_say_why() -> None:
    asked: list[Status] = []

    def should_stop(status: Status) -> bool:
        asked.append(status)
        return status.clock == 2

    assert decided_at(StopRule(None, should_stop), [0.3, 0.2]) == (2, "should_stop(status) at clock 2")
    assert asked[0] == Status(1, 0.5, {"loss": 0.3})
    assert asked[0].epoch == asked[0].clock == 1
    both = StopRule(Until.parse("loss < 0.25"), lambda status: "bored" if status.epoch == 3 else False)
    assert decided_at(both, [0.3, 0.26, 0.26]) == (3, "bored")
    assert decided_at(both, [0.2]) == (1, "--until loss < 0.25 (loss = 0.2)")


CELL = """
    lowest = 0.4

    def should_stop(status):
        return status.metrics.get("loss", 1) < lowest and f"low enough at clock {status.clock}"

    def train(ps):
        w = ps.table("w", shape=2, optimizer=pai.SGD(0.1))
        for epoch in ps.clocks():
            w.push(w.pull())
            pai.log(step=epoch, loss=1 / (epoch + 1) + rank, other=3)
            assert epoch < 50
        return epoch
"""


def test_a_cells_function_ends_its_run(bench: Any) -> None:
    result = bench.run(CELL.replace("+ rank", ""), workers=2)
    assert (result.clock, result.returned) == (3, (2, 2))
    assert result.reason == "low enough at clock 3"
    again = bench.run(CELL.replace("lowest = 0.4", "lowest = 0.6"), workers=2)  # mean over the two: 1 / n + 0.5
    assert again.clock == 11
    asp = bench.run(CELL.replace("+ rank", ""), workers=2, consistency="asp")
    assert asp.reason.startswith("low enough")


def test_its_error_is_the_runs_and_shows_its_line(bench: Any) -> None:
    cell = CELL.replace("lowest and", "unknown and")
    with pytest.raises(UserCodeError, match="name 'unknown' is not defined") as raised:
        bench.run(cell, workers=2)
    assert "the coordinator" in str(raised.value)
    assert "status.metrics.get" in raised.value.traceback
    with pytest.raises(ProgramError, match="should_stop"):
        bench.run(CELL.replace("should_stop(status)", "should_stop(status, loss)"))


@pytest.mark.slow
def test_a_new_coordinator_asks_it_too(real: Any) -> None:
    cell = """
        import time
        def should_stop(status):
            return status.clock >= 30

        def train(ps):
            for epoch in ps.clocks():
                if epoch == 5 and rank == 0:
                    print("running", flush=True)
                time.sleep(0.02)
            return epoch
    """
    killed: list[int] = []

    def on_event(event: Any) -> None:
        if event.kind == "stdout" and "running" in event.data:
            killed.extend(r.pid for r in real.cluster.status().ranks if r.role == "coordinator")
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    result = real.run(cell, real.context(on_event), workers=2)
    assert len(killed) == 1
    assert result.clock == 30
    assert result.reason == "should_stop(status) at clock 30"
