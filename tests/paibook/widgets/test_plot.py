"""Plots of runs: pictures, comparisons, files, matplotlib."""

import io
import sys

import pandas
import pytest

import paibook as pai
from paibook.errors import PaibookError
from paibook.history import RunHistory
from paibook.metrics import MetricStream
from paibook.run import RunRecord
from paibook.widgets import plot
from paibook.widgets.figure import VEGALITE
from paibook.widgets.plot import Plot, compare


@pytest.fixture
def streams(metric):
    streams = {"adam": MetricStream("r1"), "sgd": MetricStream("r2")}
    for scale, stream in enumerate(streams.values(), 1):
        stream.append([metric(step, "loss $x$", scale / (1 + step), rank) for step in range(50) for rank in (0, 1)])
        stream.append(
            [metric(None if step == 3 else step, "_odd", float("nan") if step == 2 else step) for step in range(5)]
        )
    return streams


def test_the_picture_has_a_colour_and_a_legend_for_each_run(streams):
    streams["sgd"].note("halved the rate")
    bundle = Plot(streams, "Two").bundle()
    lines = [layer for layer in bundle[VEGALITE]["concat"][0]["layer"] if "color" in layer.get("encoding", {})]
    assert [line["encoding"]["color"]["datum"] for line in lines] == ["adam", "sgd"]
    assert ">sgd<" in bundle["image/svg+xml"]
    assert "loss $x$ · sgd" in bundle["text/plain"]
    assert "note at step 49: sgd: halved the rate" in bundle["text/plain"]


def test_a_plot_shows_its_table_as_text(streams):
    assert repr(Plot(streams)).splitlines()[1].startswith("loss $x$ · adam")


def test_files_have_every_report_or_the_picture(streams, tmp_path):
    shown = Plot(streams, "Two")
    for table in (
        pandas.read_csv(shown.save(tmp_path / "m.csv")),
        pandas.read_parquet(shown.save(tmp_path / "m.parquet")),
    ):
        assert list(table.columns) == ["run", "step", "name", "value", "rank", "time"]
        assert len(table) == 210
        assert set(table["run"]) == {"r1", "r2"}
        assert table["step"].isna().sum() == 2
    assert shown.save(tmp_path / "m.svg").read_text().startswith("<svg")
    assert shown.save(tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(PaibookError, match=r"'m\.xlsx'"):
        shown.save(tmp_path / "m.xlsx")


def test_kept_runs_are_compared_by_name_or_id(metric, tmp_path, monkeypatch):
    history = RunHistory(tmp_path)
    ids = []
    for _ in range(2):
        run, directory = history.new_directory("allreduce")
        RunRecord(run, "lenet", "allreduce", "inline", "done", 1.0, 2.0).save(directory)
        stream = MetricStream(run, directory / "metrics.jsonl")
        stream.append([metric(0, "loss", 1.0)])
        stream.note("kept")
        ids.append(run)
    monkeypatch.setattr(plot, "current", lambda: type("Session", (), {"history": history}))
    shown = pai.compare(ids[0], history.find(ids[1]))
    assert list(shown.streams) == ["lenet", f"lenet {ids[1][-4:]}"]
    assert [stream.notes[0].text for stream in shown.streams.values()] == ["kept", "kept"]
    assert next(iter(compare("lenet").streams.values())).run == max(ids)
    with pytest.raises(PaibookError, match="no run is called 'x'"):
        compare("x")
    with pytest.raises(PaibookError, match="takes runs or their ids"):
        compare()
    with pytest.raises(PaibookError, match="got int"):
        compare(3)


def test_matplotlib_draws_it_for_papers(streams):
    pytest.importorskip("matplotlib")
    figure = Plot(streams).figure()
    assert [axes.get_title(loc="left") for axes in figure.axes] == [r"loss \$x\$", "\u200b_odd"]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["adam", "sgd"]
    figure.savefig(io.BytesIO(), format="pdf")
    ranks = Plot({"": streams["adam"]}).figure(names=["loss $x$"], by_rank=True, log=True)
    assert [text.get_text() for text in ranks.axes[0].get_legend().get_texts()] == ["rank 0", "rank 1"]
    with pytest.raises(PaibookError, match="no metric is called 'los'; logged: loss"):
        Plot(streams).figure(names=["los"])
    with pytest.raises(PaibookError, match="no metrics were logged"):
        Plot({"": MetricStream()}).figure()


def test_without_matplotlib_the_extra_is_named(streams, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(PaibookError, match=r"paibook\[figures\]"):
        Plot(streams).figure()
