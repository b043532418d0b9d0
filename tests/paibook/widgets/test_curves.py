import math
import time

import numpy as np
import pytest

from paibook.metrics import MetricStream
from paibook.widgets import curves
from paibook.widgets.curves import Curves
from paibook.widgets.figure import VEGALITE


@pytest.fixture
def stream():
    return MetricStream("r1")


def column(widget, place):
    offset, length = place
    return np.frombuffer(widget.data, "<f8")[offset : offset + length].tolist()


def fresh(widget):
    """Update, whatever was sent just before."""
    widget._next = 0.0
    widget.update()
    return widget.panels


def test_state_holds_the_points_of_every_metric(stream, metric):
    stream.append([metric(0, "loss", 3.0), metric(1, "loss", 2.0), metric(0, "accuracy", 0.5)])
    widget = Curves(stream, "A run")
    loss, accuracy = fresh(widget)
    assert (loss["name"], accuracy["name"]) == ("loss", "accuracy")
    assert column(widget, loss["series"][0]["x"]) == [0, 1]
    assert column(widget, loss["series"][0]["mean"]) == [3, 2]
    assert column(widget, accuracy["series"][0]["mean"]) == [0.5]
    assert "low" not in loss["series"][0]


def test_ranks_become_a_mean_with_a_band_or_a_line_each_when_asked(stream, metric):
    stream.append([metric(0, "loss", rank, rank) for rank in range(3)])
    widget = Curves(stream)
    (series,) = fresh(widget)[0]["series"]
    assert series["label"] == "mean of 3 ranks"
    assert [column(widget, series[part]) for part in ("mean", "low", "high")] == [[1], [0], [2]]
    widget.by_rank = True
    lines = fresh(widget)[0]["series"]
    assert [line["label"] for line in lines] == ["rank 0", "rank 1", "rank 2"]
    assert [column(widget, line["mean"]) for line in lines] == [[0], [1], [2]]


def test_a_value_that_is_not_finite_is_marked_and_told(stream, metric):
    stream.append([metric(step, "loss", value) for step, value in enumerate([1.0, math.nan, 2.0])])
    widget = Curves(stream)
    (panel,) = fresh(widget)
    assert column(widget, panel["marks"]) == [1]
    assert panel["note"] == "not finite: NaN at step 1"


def test_at_most_ten_messages_a_second(stream, metric):
    widget = Curves(stream)
    start, step = time.monotonic(), 0
    while time.monotonic() - start < 0.5:
        stream.append([metric(step, "loss", 1.0)])
        widget.update()
        step += 1
    assert step > 20
    assert widget.version <= 1 + (time.monotonic() - start) / curves.MESSAGE_SECONDS


def test_nothing_new_sends_nothing(stream, metric):
    stream.append([metric(0, "loss", 1.0)])
    widget = Curves(stream)
    fresh(widget)
    version = widget.version
    fresh(widget)
    assert widget.version == version


def test_state_is_bounded(stream, metric):
    stream.append([metric(step, "loss", step % 7) for step in range(20_000)])
    widget = Curves(stream)
    fresh(widget)
    assert len(widget.data) <= 8 * 4 * 1000


def test_a_burst_is_taken_in_over_several_updates_and_completely_at_the_end(stream, metric, monkeypatch):
    monkeypatch.setattr(curves, "REPORTS_PER_UPDATE", 10)
    stream.append([metric(step, "loss", 1.0) for step in range(25)])
    widget = Curves(stream)
    fresh(widget)
    assert "10 values" in widget.status
    assert "25 values" not in widget.status
    bundle = widget.close_with_static()
    assert "25 values" in widget.status
    assert VEGALITE in bundle
    assert not widget.running


def test_stop_calls_back_while_running_only(stream, metric):
    calls = []
    widget = Curves(stream, on_stop=lambda: calls.append("stop"))
    assert widget.can_stop
    assert not Curves(stream).can_stop
    widget._receive(widget, {"kind": "nonsense"}, [])
    widget._receive(widget, {"kind": "stop"}, [])
    assert calls == ["stop"]
    widget.close_with_static()
    widget._receive(widget, {"kind": "stop"}, [])
    assert calls == ["stop"]


def test_the_built_module_needs_no_network_and_keeps_the_licence():
    script = (curves._STATIC / "curves.js").read_text()
    assert "Permission is hereby granted, free of charge" in script
    assert "Leon Sorokin" in script
    assert "import(" not in script
    assert "fetch(" not in script
