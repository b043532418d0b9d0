"""Minimisers on functions whose minima are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paibook.algorithms.estimators.descent import gradient_descent
from paibook.algorithms.estimators.lbfgs import lbfgs


def quadratic(scales: np.ndarray, center: np.ndarray) -> Any:
    return lambda w: (float(scales @ (w - center) ** 2 / 2), scales * (w - center))


def rosenbrock(w: np.ndarray) -> tuple[float, np.ndarray]:
    x, y = w
    value = (1 - x) ** 2 + 100 * (y - x**2) ** 2
    return float(value), np.array([-2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)])


@pytest.mark.parametrize("minimise", [lbfgs, gradient_descent])
@given(seed=st.integers(0, 50), strength=st.sampled_from([0.0, 0.1, 1.0]))
def test_an_l1_penalty_draws_each_coordinate_to_zero(minimise: Any, seed: int, strength: float) -> None:
    generator = np.random.default_rng(seed)
    scales, center = generator.uniform(0.2, 5, 6), generator.normal(size=6)
    penalties = np.array([strength] * 5 + [0.0])
    found = minimise(quadratic(scales, center), np.zeros(6), penalties, tolerance=1e-9)
    expected = np.sign(center) * np.maximum(np.abs(center) - penalties / scales, 0)
    np.testing.assert_allclose(found.point, expected, atol=1e-7)
    assert found.value == pytest.approx(quadratic(scales, center)(expected)[0] + penalties @ np.abs(expected))
    assert found.converged


def test_a_curved_valley() -> None:
    found = lbfgs(rosenbrock, np.array([-1.2, 1.0]))
    np.testing.assert_allclose(found.point, [1, 1], atol=1e-5)
    assert found.steps < 60


def test_each_step_is_reported_and_steps_are_counted() -> None:
    values: list[tuple[int, float]] = []
    found = lbfgs(rosenbrock, np.array([-1.2, 1.0]), steps=7, report=lambda step, value: values.append((step, value)))
    assert [step for step, _ in values] == list(range(1, 8))
    assert sorted(values, key=lambda pair: -pair[1]) == values
    assert found.steps == 7
    assert found.value == values[-1][1]
    assert not found.converged


def test_at_the_minimum_there_is_nothing_to_do() -> None:
    assert lbfgs(quadratic(np.ones(2), np.zeros(2)), np.zeros(2)).steps == 0
    assert gradient_descent(quadratic(np.ones(2), np.ones(2)), np.zeros(2), 2.0).point.tolist() == [0, 0]
