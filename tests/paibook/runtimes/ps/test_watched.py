"""Watched metrics: remembered on the worker, sent with its clock, averaged on server 0; free when none is named."""

from __future__ import annotations

from typing import Any

import pytest

from paibook.metrics import Metric
from paibook.runtimes.ps.board import ClockBoard
from paibook.runtimes.ps.client import ServerLink
from paibook.runtimes.ps.consistency import Consistency
from paibook.runtimes.ps.coordinator import Until
from paibook.runtimes.ps.messages import Op
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
    return ClockBoard(Consistency(kind), 2, lambda clock: None, Until.parse("loss < 1"))


def test_under_bsp_the_last_worker_of_a_clock_brings_the_decision() -> None:
    bsp = board("bsp")
    bsp.tick(0, {"loss": 0.5})
    assert bsp.reason is None
    bsp.tick(1, {"loss": 3.0})
    assert bsp.reason is None
    bsp.tick(0, {"loss": 0.5})
    bsp.tick(1, {"loss": 1.0})
    assert bsp.reason == "loss < 1 (loss = 0.75)"


def test_under_bsp_a_worker_that_leaves_may_bring_it_too() -> None:
    bsp = board("bsp")
    bsp.tick(0, {"loss": 1.5})
    bsp.retire(1, {"loss": 0.1})
    assert bsp.reason == "loss < 1 (loss = 0.8)"


def test_otherwise_every_clock_of_a_worker_does() -> None:
    for kind in ("ssp", "asp"):
        free = board(kind)
        free.tick(0, {"loss": 0.5})
        assert free.reason == "loss < 1 (loss = 0.5)"


def clock_payloads(bench: Any, monkeypatch: pytest.MonkeyPatch, until: str) -> list[bytes]:
    """What a worker sends with its six clocks and its leave, to two servers each."""
    sent: list[bytes] = []
    ask = ServerLink.ask

    def spy(link: ServerLink, header: Any, *buffers: Any) -> int:
        if header.op in (Op.CLOCK, Op.RETIRE):
            sent.append(b"".join(buffers))
        return ask(link, header, *buffers)

    monkeypatch.setattr(ServerLink, "ask", spy)
    bench.run(CELL, workers=1, until=until)
    return sent


def test_only_changed_values_travel_and_to_server_0_alone(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = clock_payloads(bench, monkeypatch, "loss < 0")
    assert sent[0::2] == [b"", b'{"loss": 0.1}', b"", b'{"loss": 0.3}', b"", b'{"loss": 0.5}', b""]
    assert sent[1::2] == [b""] * 7


def test_nothing_travels_when_no_metric_is_named(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert clock_payloads(bench, monkeypatch, "epoch >= 99") == [b""] * 14
