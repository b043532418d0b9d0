import math
import time

import numpy as np
import pytest
import traitlets

from paibook.metrics import Metric, MetricStream
from paibook.widgets import curves
from paibook.widgets.curves import Curves
from paibook.widgets.decimation import MAX_CURVES
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


def test_zoom_sends_the_detail_of_the_stretch_and_zooming_out_all_of_it(stream, metric):
    stream.append([metric(step, "loss", step) for step in range(50_000)])
    widget = Curves(stream)
    (panel,) = fresh(widget)
    assert len(column(widget, panel["series"][0]["x"])) < 1000
    assert panel["series"][0]["label"] == "mean of 64 steps"
    widget.zoom = [1000, 1100]
    (panel,) = widget.panels
    assert column(widget, panel["series"][0]["x"]) == list(range(998, 1103))
    assert panel["rows"] == [["loss", "0", "5e+04", "0", "49,999"]]  # of the whole run
    stream.append([metric(1050, "loss", -1.0), metric(60_000, "loss", 1.0)])
    (panel,) = fresh(widget)
    assert min(column(widget, panel["series"][0]["low"])) == -1
    widget.zoom = []
    assert max(column(widget, widget.panels[0]["series"][0]["x"])) == 60_000


def test_time_and_epoch_are_axes(stream):
    for step in range(10):
        stream.append(
            [Metric("", step, "loss", 1.0, 0, 100 + step / 2), Metric("", step, "epoch", step // 5, 0, 100.0)]
        )
    widget = Curves(stream, axis="time")
    (loss, _) = fresh(widget)
    assert widget.axes == ["step", "epoch", "time"]
    assert column(widget, loss["series"][0]["x"]) == [step / 2 for step in range(10)]
    widget.zoom = [1, 2]
    assert column(widget, widget.panels[0]["series"][0]["x"]) == [1, 1.5, 2]
    widget.axis = "epoch"
    assert widget.zoom == []
    assert column(widget, widget.panels[0]["series"][0]["x"]) == [0] * 5 + [1] * 5


def test_a_run_without_epochs_does_not_offer_them(stream, metric):
    stream.append([metric(0, "loss", 1.0)])
    widget = Curves(stream)
    fresh(widget)
    assert widget.axes == ["step", "time"]


def test_runs_are_overlaid_and_metrics_share_a_panel_when_asked(metric):
    streams = {}
    for label, scale in (("adam", 1), ("sgd", 2)):
        streams[label] = MetricStream(label)
        streams[label].append([metric(s, name, s * scale) for s in range(3) for name in ("loss", "val_loss", "lr")])
    widget = Curves(streams, overlays=[["loss", "val_loss"]])
    both, alone = fresh(widget)
    assert (both["metrics"], alone["metrics"]) == (["loss", "val_loss"], ["lr"])
    assert [s["label"] for s in both["series"]] == [f"{r} · {m}" for r in streams for m in ("loss", "val_loss")]
    assert [s["label"] for s in alone["series"]] == ["adam", "sgd"]
    assert column(widget, alone["series"][1]["mean"]) == [0, 2, 4]


def test_the_best_value_has_its_step(stream, metric):
    stream.append([metric(step, "loss", value) for step, value in enumerate([3.0, 1.0, 2.0])])
    (panel,) = fresh(Curves(stream))
    assert panel["series"][0]["best"] == [1, 1.0]
    assert panel["series"][0]["best_text"] == "best 1 at step 1"


def test_steps_out_of_order_and_repeated_run_to_the_right(stream, metric):
    stream.append([metric(step, "loss", step) for step in (5, 2, 2, 9, 0)])
    widget = Curves(stream)
    (panel,) = fresh(widget)
    assert column(widget, panel["series"][0]["x"]) == [0, 2, 5, 9]


def test_a_filter_finds_metrics_beyond_the_first(stream, metric):
    stream.append([metric(0, f"layer{i}/Norm", i) for i in range(500)])
    widget = Curves(stream)
    assert len(fresh(widget)) == MAX_CURVES
    assert "476 more metrics not shown" in widget.status
    widget.filter = "R499/n"
    assert [panel["name"] for panel in widget.panels] == ["layer499/Norm"]
    assert len(widget.names) == 500


def test_a_note_is_kept_with_the_run(stream, metric):
    stream.append([metric(7, "loss", 1.0)])
    widget = Curves(stream)
    widget._receive(widget, {"kind": "note", "text": " lower the rate "}, [])
    widget._receive(widget, {"kind": "note", "text": "  "}, [])
    assert [(note.step, note.text) for note in stream.notes] == [(7, "lower the rate")]
    assert widget.notes == [{"x": 7.0, "text": "lower the rate"}]
    assert "note at step 7: lower the rate" in widget.close_with_static()["text/plain"]


def test_a_million_reports_take_bounded_state(stream, metric):
    steps = np.arange(1_000_000)
    stream._store._step.extend(steps.tolist())
    for part, value in (("_code", 0), ("_value", 1.0), ("_rank", 0), ("_time", 0.0)):
        getattr(stream._store, part).extend([value] * len(steps))
    stream._store.codes["loss"] = 0
    widget = Curves(stream)
    widget.show_all(running=False)
    assert len(widget.data) <= 8 * 4 * 1000
    widget.zoom = [500_000, 500_100]
    assert len(column(widget, widget.panels[0]["series"][0]["x"])) == 105


@pytest.mark.parametrize("view", [{"axis": "days"}, {"smoothing": 1.5}, {"colour": "red"}, {"zoom": [1, 2, 3]}])
def test_a_view_that_cannot_be_is_refused(stream, view):
    with pytest.raises(traitlets.TraitError):
        Curves(stream, **view)
