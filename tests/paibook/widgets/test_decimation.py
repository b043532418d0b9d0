import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from paibook.metrics import Metric
from paibook.widgets.decimation import CAPACITY, MAX_CURVES, MAX_RANKS, Buckets, Curve, History

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


def test_ranks_are_averaged_step_by_step(metric):
    curve = Curve("loss")
    for step in (0, 1):
        for rank in range(4):
            curve.add(metric(step, "loss", step * 10 + rank, rank))
    points = curve.together.points()
    assert points.mean.tolist() == [1.5, 11.5]
    assert (points.low.tolist(), points.high.tolist()) == ([0, 10], [3, 13])
    assert (curve.first, curve.last, curve.best, curve.last_step) == (1.5, 11.5, 0.0, 1)
    assert sorted(curve.ranks) == [0, 1, 2, 3]


def test_best_is_the_highest_accuracy_and_the_lowest_loss(metric):
    for name, best in [("val_accuracy", 3.0), ("loss", 1.0)]:
        curve = Curve(name)
        for step, value in enumerate([2.0, 3.0, math.nan, 1.0]):
            curve.add(metric(step, name, value))
        assert curve.best == best


def test_reports_without_a_step_are_numbered_by_rank(metric):
    curve = Curve("loss")
    for value in (5.0, 4.0, 3.0):
        for rank in (0, 1):
            curve.add(metric(None, "loss", value, rank))
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
