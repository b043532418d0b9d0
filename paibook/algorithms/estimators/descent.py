"""Batch gradient descent, and proximal gradient descent where there is an L1 penalty (ISTA; Beck & Teboulle, 2009)."""

from __future__ import annotations

import numpy as np

from paibook.algorithms.estimators.lbfgs import Minimum, Objective, Report, pseudo_gradient
from paibook.errors import RunError

_LONGER = 1.5  # how much longer a step is tried than the last one was


def gradient_descent(
    objective: Objective,
    start: np.ndarray,
    l1: np.ndarray | float = 0.0,
    *,
    rate: float | None = None,
    tolerance: float = 1e-6,
    steps: int = 1000,
    report: Report = lambda step, value: None,
) -> Minimum:
    """Minimise ``objective(w) + sum(l1 * abs(w))``.

    Args:
        rate: The learning rate; where None it is found, step by step, as long as the objective's curvature allows.
        objective, start, l1, tolerance, steps, report: As for ``lbfgs``.

    Raises:
        RunError: The learning rate is too large: the value is infinite.
    """
    point, l1 = start.astype(np.float64), np.broadcast_to(np.asarray(l1, dtype=np.float64), start.shape)
    value, gradient = objective(point)
    length = 1.0 if rate is None else rate
    for step in range(1, steps + 1):
        if np.abs(pseudo_gradient(point, gradient, l1)).max(initial=0.0) <= tolerance:
            return Minimum(point, value + float(l1 @ np.abs(point)), step - 1, True)
        while True:
            new = _shrunk(point - length * gradient, length * l1)
            new_value, new_gradient = objective(new)
            if rate is not None and not np.isfinite(new_value):
                raise RunError(f"gradient descent diverged at step {step}: learning_rate={rate:g} is too large")
            change = new - point
            bound = value + float(gradient @ change) + float(change @ change) / (2 * length)
            # The second says it by the curvature: near the minimum values differ by less than they are rounded.
            flat = 2 * length * float((new_gradient - gradient) @ change) <= float(change @ change)
            if rate is not None or new_value <= bound or flat:
                break
            length /= 2
        point, value, gradient = new, new_value, new_gradient
        length *= _LONGER if rate is None else 1.0
        report(step, value + float(l1 @ np.abs(point)))
    return Minimum(point, value + float(l1 @ np.abs(point)), steps, False)


def _shrunk(point: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """Soft thresholding: each coordinate nearer to zero by an amount, and no further than zero."""
    return np.sign(point) * np.maximum(np.abs(point) - amount, 0.0)
