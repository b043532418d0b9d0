"""Watched metrics: remembered on the worker, sent with its clock, averaged by the coordinator; free when unnamed."""

from __future__ import annotations

from typing import Any

import pytest

from paibook.metrics import Metric
from paibook.runtimes.ps import board as board_module
from paibook.runtimes.ps.board import ClockBoard
from paibook.runtimes.ps.consistency import Consistency
from paibook.runtimes.ps.coordinator_link import CoordinatorLink
from paibook.runtimes.ps.messages import Op
from paibook.runtimes.ps.stopping import StopRule
from paibook.runtimes.ps.until import Until
from paibook.runtimes.ps.watched import WatchedMeans, WatchedRecorder, never_logged

CELL = """
    def train(ps):
        for epoch in ps.clocks(6):
            pai.log(step=epoch, accuracy=epoch)
            if epoch % 2:
                pai.log(step=epoch, loss=9)
                pai.log(step=epoch, loss=epoch / 10)
"""


def test_a_recorder_gives_the_latest_of_each_watched_metric_once() -> None:
    sent: list[Metric] = []
    recorder = WatchedRecorder(sent.extend, 1, ["loss", "auc"])
    recorder.record(0, {"loss": 3, "other": 1})
    recorder.record(0, {"loss": 2})
    assert recorder.take() == {"loss": 2.0}
    assert recorder.take() == {}
    with pytest.raises(TypeError, match=r"pai\.log"):
        recorder.record(1, {"loss": "low"})
    assert recorder.take() == {}
    recorder.flush()
    assert [(m.name, m.value, m.rank) for m in sent] == [("loss", 3, 1), ("other", 1, 1), ("loss", 2, 1)]


def test_a_metric_is_the_mean_of_each_ranks_latest() -> None:
    means = WatchedMeans(["loss"])
    means.observe(0, {"accuracy": 1})
    assert means.values() == {}
    means.observe(0, {"loss": 9})
    means.observe(0, {"loss": 1})
    means.observe(1, {"loss": 3})
    assert means.values() == {"loss": 2.0}


def test_a_metric_nobody_logged_is_named_with_its_neighbour() -> None:
    assert never_logged(["loss"], ["loss"]) == ""
    assert never_logged(["lss"], ["loss"]).endswith("(logged: loss); did you mean 'loss'?")
    assert never_logged(["x"], []).endswith("(logged: nothing)")


def board(kind: str) -> ClockBoard:
    return ClockBoard(Consistency(kind), 2, lambda clock: None, StopRule(Until.parse("loss < 1")), ["loss"])


def test_under_bsp_the_last_worker_of_a_clock_brings_the_decision() -> None:
    bsp = board("bsp")
    bsp.advance(0, 0, 1, {"loss": 0.5})
    assert bsp.reason is None
    bsp.advance(1, 0, 1, {"loss": 3.0})
    assert bsp.reason is None
    bsp.advance(0, 0, 2, {"loss": 0.5})
    bsp.advance(1, 0, 2, {"loss": 1.0})
    assert bsp.reason == "--until loss < 1 (loss = 0.75)"


def test_under_bsp_a_worker_that_leaves_may_bring_it_too() -> None:
    bsp = board("bsp")
    bsp.advance(0, 0, 1, {"loss": 1.5})
    bsp.retire(1, 0, {"loss": 0.1})
    assert bsp.reason == "--until loss < 1 (loss = 0.8)"


def test_otherwise_every_clock_of_a_worker_does() -> None:
    for kind in ("ssp", "asp"):
        free = board(kind)
        free.advance(0, 0, 1, {"loss": 0.5})
        assert free.reason == "--until loss < 1 (loss = 0.5)"


def test_the_decision_is_written_down_before_anybody_hears_of_it() -> None:
    heard: list[tuple[str, str | None]] = []
    decider = ClockBoard(
        Consistency("asp"),
        1,
        lambda clock: None,
        StopRule(Until.parse("clock >= 2")),
        decided=lambda reason: heard.append((reason, decider.reason)),
    )
    decider.advance(0, 0, 1)
    decider.advance(0, 0, 2)
    decider.advance(0, 0, 3)
    assert heard == [("--until clock >= 2 (clock = 2)", None)]


def test_what_a_dead_process_still_says_counts_no_more() -> None:
    asp = board("asp")
    asp.join(0, 0)
    asp.advance(0, 0, 3)
    assert asp.join(0, 1) == {"clock": 3, "retired": False}
    asp.advance(0, 0, 4, {"loss": 0.5})
    asp.retire(0, 0)
    assert (asp.vector.clocks, asp.vector.retired, asp.reason) == ((3, 0), frozenset(), None)
    asp.advance(0, 1, 4)
    assert asp.vector.clocks == (4, 0)


def test_a_worker_waits_for_the_others_for_a_moment_where_nothing_is_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_module, "BARRIER_SECONDS", 0.01)
    barrier = ClockBoard(Consistency("bsp"), 2, lambda clock: None)
    barrier.advance(0, 0, 1)
    assert barrier.goes_on(0, 1)  # the other one is not heard of: a coordinator that is new knows nobody


def clock_payloads(bench: Any, monkeypatch: pytest.MonkeyPatch, until: str) -> list[Any]:
    """What a worker sends with its six clocks and its leave."""
    sent: list[Any] = []
    exchange = CoordinatorLink._exchange

    def spy(link: CoordinatorLink, header: Any, value: Any) -> Any:
        if header.op in (Op.CLOCK, Op.RETIRE):
            sent.append(value)
        return exchange(link, header, value)

    monkeypatch.setattr(CoordinatorLink, "_exchange", spy)
    bench.run(CELL, workers=1, until=until)
    return sent


def test_only_changed_values_travel(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = clock_payloads(bench, monkeypatch, "loss < 0")
    assert sent == [{}, {"loss": 0.1}, {}, {"loss": 0.3}, {}, {"loss": 0.5}, {}]


def test_nothing_travels_when_no_metric_is_named(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert clock_payloads(bench, monkeypatch, "epoch >= 99") == [{}] * 7
