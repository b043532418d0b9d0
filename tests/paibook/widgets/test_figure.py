import json
import math
import random

import pytest

from paibook.metrics import MetricStream
from paibook.widgets.figure import VEGALITE, bundle

LIMIT = 200_000


def size(bundle):
    return sum(len(part if isinstance(part, str) else json.dumps(part)) for part in bundle.values())


def is_cross(layer):
    return layer["mark"].get("text") == "×"


@pytest.fixture
def stream(metric):
    stream = MetricStream("r1")
    for step in range(100):
        stream.append([metric(step, "loss", 1 / (1 + step) + rank * 0.01, rank) for rank in range(4)])
        stream.append([metric(step, "accuracy", math.nan if step in (50, 51) else step / 100)])
    return stream


def test_the_bundle_has_a_picture_for_every_viewer_and_no_html(stream):
    parts = bundle(stream, "A run")
    assert list(parts) == [VEGALITE, "image/svg+xml", "text/plain"]
    assert parts["image/svg+xml"].startswith("<svg")
    assert "A run" in parts["image/svg+xml"]
    json.dumps(parts[VEGALITE], allow_nan=False)
    assert [panel["title"]["text"] for panel in parts[VEGALITE]["concat"]] == ["loss", "accuracy"]


def test_values_that_are_not_finite_break_the_line_and_are_marked(stream):
    loss, accuracy = bundle(stream)[VEGALITE]["concat"]
    records = accuracy["data"]["values"]
    assert {record.get("part", 0) for record in records if record["x"] < 50} == {0}
    assert {record.get("part", 0) for record in records if record["x"] > 51} == {2}
    crosses = [layer["data"]["values"] for layer in accuracy["layer"] if is_cross(layer)]
    assert crosses == [[{"x": 50}, {"x": 51}]]
    assert not [layer for layer in loss["layer"] if is_cross(layer)]


def test_text_names_first_last_best_and_steps(stream):
    title, head, loss, accuracy = bundle(stream, "A run")["text/plain"].splitlines()
    assert title == "A run"
    assert head.split() == ["metric", "first", "last", "best", "step"]
    assert loss.split()[:5] == ["loss", "1.015", "0.025", "0.01", "99"]
    assert accuracy.split()[:5] == ["accuracy", "0", "0.99", "0.99", "99"]
    assert "█" in loss


@pytest.mark.parametrize(
    ("names", "reports", "ranks"), [(1, 200_000, 8), (20, 10_000, 1), (12, 4_000, 4), (5_000, 40, 1)]
)
def test_hundreds_of_thousands_of_reports_stay_small(metric, names, reports, ranks):
    stream = MetricStream()
    draw = random.Random(0).random
    stream.append(metric(i // ranks, f"m{k}", draw(), i % ranks) for k in range(names) for i in range(reports))
    assert size(bundle(stream, "A long run")) < LIMIT


@pytest.mark.parametrize(
    "values", [[1.0], [math.nan], [1.0, math.nan, 2.0], [0.0, 0.0], [1e300, -1e300], [math.inf, 1e-12]]
)
def test_odd_series_are_drawn(metric, values):
    stream = MetricStream()
    stream.append([metric(step, 'a "<b>" name', value) for step, value in enumerate(values)])
    assert bundle(stream)["image/svg+xml"].startswith("<svg")


def test_nothing_reported_is_said_in_words():
    assert bundle(MetricStream(), "A run") == {"text/plain": "A run: no metrics"}
