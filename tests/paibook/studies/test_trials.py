"""A trial's metric, step by step; and options that cannot be meant."""

from __future__ import annotations

import math
from typing import Any

import pytest

from paibook.errors import PlanError
from paibook.metrics import Metric
from paibook.studies.trials import StepMeans, StudyOptions


def record(step: int | None, value: float, rank: int = 0, name: str = "loss") -> Metric:
    return Metric("r", step, name, value, rank, 0.0)


def test_a_step_is_the_mean_over_ranks_and_told_once_the_next_has_begun() -> None:
    means = StepMeans("loss")
    means.add([record(0, 1.0), record(0, 3.0, 1), record(1, 5.0), record(1, 9.0, name="other")])
    assert means.complete(ended=False) == [(0, 2.0)]
    assert means.complete(ended=False) == []
    means.add([record(1, 7.0, 1)])
    assert means.complete(ended=True) == [(1, 6.0)]
    assert means.others == {"other"}
    assert means.value("last", "minimize") == 6.0
    assert means.value("best", "minimize") == 2.0
    assert means.value("best", "maximize") == 6.0


def test_records_without_steps_are_counted_by_rank() -> None:
    means = StepMeans("loss")
    means.add([record(None, 1.0), record(None, 2.0), record(None, 3.0, 1)])
    assert means.complete(ended=True) == [(0, 2.0), (1, 2.0)]


def test_what_was_not_finite_or_never_came() -> None:
    means = StepMeans("loss")
    assert means.value("last", "minimize") is None
    means.add([record(0, 1.0), record(1, math.nan)])
    assert math.isnan(means.value("last", "minimize") or 0.0)
    assert means.value("best", "minimize") == 1.0


def test_a_long_curve_is_thinned_and_keeps_its_end() -> None:
    means = StepMeans("loss")
    means.add([record(step, float(step)) for step in range(1000)])
    curve = means.curve(60)
    assert len(curve) <= 60
    assert curve[-1] == 999
    assert list(curve) == sorted(curve)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"direction": "up"}, "direction of a search must be one of minimize, maximize; got 'up'"),
        ({"sampler": "grid"}, "sampler"),
        ({"pruner": "sharp"}, "pruner"),
        ({"which": "first"}, "which"),
        ({"trials": 0}, "trials of a search must be 1 or more"),
        ({"jobs": 0}, "jobs"),
        ({"trials": 2.5}, "trials"),
        ({"timeout": math.inf}, "timeout"),
        ({"metric": ""}, "name of a metric"),
        ({"study": "../x"}, "letters, digits"),
        ({"resume": True}, "Name it with --study"),
    ],
)
def test_options_that_cannot_be_meant_are_named(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(PlanError, match=said):
        StudyOptions(**wrong)
