import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from paibook.metrics import Metric
from paibook.widgets import decimation
from paibook.widgets.decimation import CAPACITY, MAX_CURVES, MAX_RANKS, Buckets, Curve, History, Window

steps_and_values = st.lists(
    st.tuples(st.integers(-10_000, 10_000), st.floats(-1e6, 1e6) | st.just(math.nan)), min_size=1, max_size=300
)


@given(steps_and_values, st.integers(2, 40))
def test_buckets_stay_within_capacity_and_lose_no_extreme(reports, capacity):
    buckets = Buckets(capacity)
    for step, value in reports:
        buckets.add(step, value)
    points = buckets.points()
    finite = [value for _, value in reports if math.isfinite(value)]
    assert len(points.x) <= capacity
    assert np.all(np.diff(points.x) > 0)
    if finite:
        assert (np.nanmin(points.low), np.nanmax(points.high)) == (min(finite), max(finite))
    assert (len(points.marks) > 0) == (len(finite) < len(reports))


@given(steps_and_values)
def test_few_steps_are_kept_exactly(reports):
    buckets = Buckets()
    for step, value in reports:
        buckets.add(step, value)
    points = buckets.points()
    assert buckets.width == 1
    assert points.x.tolist() == sorted({step for step, _ in reports})


def test_steps_far_apart_keep_their_own_buckets():
    buckets = Buckets(100)
    for step in range(0, 90_000_000, 1_000_000):
        buckets.add(step, 1.0)
    assert len(buckets) == 90


def test_a_step_where_nothing_was_finite_is_a_gap_with_a_mark():
    buckets = Buckets()
    for step, value in enumerate([1.0, math.inf, 3.0]):
        buckets.add(step, value)
    points = buckets.points()
    assert math.isnan(points.mean[1])
    assert points.marks.tolist() == [1.0]


def test_ranks_are_averaged_step_by_step():
    curve = Curve("loss")
    for step in (0, 1):
        for rank in range(4):
            curve.add(step, step * 10 + rank, rank)
    points = curve.together.points()
    assert points.mean.tolist() == [1.5, 11.5]
    assert (points.low.tolist(), points.high.tolist()) == ([0, 10], [3, 13])
    assert (curve.first, curve.last, curve.best, curve.last_step) == (1.5, 11.5, 0.0, 1)
    assert sorted(curve.ranks) == [0, 1, 2, 3]


def test_best_is_the_highest_accuracy_and_the_lowest_loss():
    for name, best in [("val_accuracy", 3.0), ("loss", 1.0)]:
        curve = Curve(name)
        for step, value in enumerate([2.0, 3.0, math.nan, 1.0]):
            curve.add(step, value, 0)
        assert curve.best == best
        assert curve.best_step == {3.0: 1, 1.0: 3}[best]


def test_reports_without_a_step_are_numbered_by_rank(metric):
    history = History(metric(None, "loss", value, rank) for value in (5.0, 4.0, 3.0) for rank in (0, 1))
    curve = history.curves["loss"]
    assert curve.together.points().x.tolist() == [0, 1, 2]
    assert curve.last == 3.0


def test_memory_is_bounded_in_reports_names_and_ranks():
    history = History(Metric("", step, "loss", 1.0, step % 64, 0.0) for step in range(20_000))
    history.add(Metric("", 0, f"metric {i}", 1.0, 0, 0.0) for i in range(1000))
    curve = history.curves["loss"]
    assert len(curve.together) <= CAPACITY
    assert len(curve.ranks) == MAX_RANKS
    assert len(history.curves) == MAX_CURVES
    assert len(history.left_out) == 1000 - (MAX_CURVES - 1)


@given(steps_and_values, st.integers(2, 40), st.integers(0, 300))
def test_many_at_once_are_counted_as_one_by_one(reports, capacity, split):
    one, many = Buckets(capacity), Buckets(capacity)
    for step, value in reports:
        one.add(step, value, step + 0.5)
    for part in (reports[:split], reports[split:]):
        if part:
            steps, values = np.array([step for step, _ in part]), np.array([value for _, value in part])
            many.extend(steps, values, steps + 0.5)
    a, b = one.points(), many.points()
    assert one.width == many.width
    for name in ("x", "mean", "low", "high", "marks", "time"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-9, atol=1e-6)


@given(steps_and_values)
def test_a_curve_says_the_same_of_many_at_once(reports):
    metrics = [Metric("", step, "loss", value, i % 3, i) for i, (step, value) in enumerate(reports)]
    one = History(metrics).curves["loss"]
    many, decimation.MANY = decimation.MANY, 1
    try:
        other = History(metrics).curves["loss"]
    finally:
        decimation.MANY = many
    told = [(c.reports, c.world_size, c.last_step, c.low, c.high, c.not_finite) for c in (one, other)]
    assert told[0] == told[1]
    assert repr(one.first_not_finite) == repr(other.first_not_finite)
    np.testing.assert_allclose([one.first, one.last], [other.first, other.last])


def test_a_window_keeps_its_reports_only_and_their_detail(metric):
    metrics = [metric(step, "loss", step) for step in range(50_000)]
    curve = History(metrics, window=Window("step", 100, 199)).curves["loss"]
    assert curve.together.points().x.tolist() == list(range(100, 200))
    counted = [metric(None, "loss", value) for value in range(10)]
    assert History(counted, window=Window("step", 3, 4)).curves["loss"].together.points().mean.tolist() == [3, 4]


def test_only_picked_names_have_curves(metric):
    history = History([metric(0, f"m{i}", i) for i in range(500)], picked=lambda name: name.endswith("7"))
    assert len(history.curves) == MAX_CURVES
    assert set(history.curves) <= {f"m{i}" for i in range(7, 500, 10)}
