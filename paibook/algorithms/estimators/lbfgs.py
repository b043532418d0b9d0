"""L-BFGS (Liu & Nocedal, 1989) and its form for L1 penalties, OWL-QN (Andrew & Gao, 2007).

The objective is called by all ranks at the same points, and gives all of them the same numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Objective = Callable[[np.ndarray], tuple[float, np.ndarray]]
Report = Callable[[int, float], None]
_DECREASE = 1e-4  # of the slope's promise that a step must keep (Armijo)
_HALVINGS = 40


@dataclass(frozen=True)
class Minimum:
    """Where a minimisation ended.

    Attributes:
        point: ``(d,)``.
        value: Of the objective there, penalty included.
        steps: How many were made.
        converged: Whether no entry of the (pseudo-)gradient exceeds the tolerance.
    """

    point: np.ndarray
    value: float
    steps: int
    converged: bool


def lbfgs(
    objective: Objective,
    start: np.ndarray,
    l1: np.ndarray | float = 0.0,
    *,
    tolerance: float = 1e-6,
    steps: int = 1000,
    memory: int = 10,
    report: Report = lambda step, value: None,
) -> Minimum:
    """Minimise ``objective(w) + sum(l1 * abs(w))``.

    Args:
        objective: Gives the value and the gradient ``(d,)`` of its smooth part.
        start: ``(d,)``.
        l1: Each coordinate's penalty ``(d,)``, or one for all.
        tolerance: Of the largest entry of the gradient.
        steps: At most.
        memory: Pairs kept of the curvature.
        report: Called after each step with its number and the value.
    """
    point, l1 = start.astype(np.float64), np.broadcast_to(np.asarray(l1, dtype=np.float64), start.shape)
    smooth, gradient = objective(point)
    value = smooth + float(l1 @ np.abs(point))
    pairs: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=memory)
    for step in range(1, steps + 1):
        slope = pseudo_gradient(point, gradient, l1)
        if np.abs(slope).max(initial=0.0) <= tolerance:
            return Minimum(point, value, step - 1, True)
        direction = -_times_inverse_hessian(pairs, slope)
        direction[(l1 > 0) & (direction * slope >= 0)] = 0.0  # where the penalty's kink says another way
        length = 1.0 if pairs else 1 / float(np.linalg.norm(slope))
        found = _line_search(objective, point, value, slope, direction, l1, length)
        if found is None and pairs:
            pairs.clear()  # rounding spoilt the curvature: begin again with the steepest way down
            continue
        if found is None:
            return Minimum(point, value, step - 1, False)
        new_point, value, new_gradient = found
        change, bend = new_point - point, new_gradient - gradient
        if change @ bend > 1e-12 * (bend @ bend):
            pairs.append((change, bend))
        point, gradient = new_point, new_gradient
        report(step, value)
    return Minimum(point, value, steps, False)


def pseudo_gradient(point: np.ndarray, gradient: np.ndarray, l1: np.ndarray) -> np.ndarray:
    """The gradient with the penalty's; at a zero that of the steepest way out, or 0 where none leads down."""
    at_zero = np.sign(gradient) * np.maximum(np.abs(gradient) - l1, 0.0)
    return np.where(point != 0, gradient + l1 * np.sign(point), at_zero)


def _times_inverse_hessian(pairs: deque[tuple[np.ndarray, np.ndarray]], vector: np.ndarray) -> np.ndarray:
    """The two-loop recursion: the inverse Hessian that the pairs tell of, times a vector."""
    result = vector.copy()
    weights = []
    for change, bend in reversed(pairs):
        weight = (change @ result) / (change @ bend)
        result -= weight * bend
        weights.append(weight)
    if pairs:
        change, bend = pairs[-1]
        result *= (change @ bend) / (bend @ bend)
    for (change, bend), weight in zip(pairs, reversed(weights), strict=True):
        result += (weight - (bend @ result) / (change @ bend)) * change
    return result


def _line_search(
    objective: Objective,
    point: np.ndarray,
    value: float,
    slope: np.ndarray,
    direction: np.ndarray,
    l1: np.ndarray,
    length: float,
) -> tuple[np.ndarray, float, np.ndarray] | None:
    """A step along a direction, halved until the value falls enough: the point, its value, its smooth gradient."""
    side = np.where(point != 0, np.sign(point), -np.sign(slope))
    for _ in range(_HALVINGS):
        new = point + length * direction
        new[(l1 > 0) & (new * side < 0)] = 0.0  # a step ends where it would change sides
        smooth, gradient = objective(new)
        new_value = smooth + float(l1 @ np.abs(new))
        if new_value <= value + _DECREASE * float(slope @ (new - point)) and (new != point).any():
            return new, new_value, gradient
        length /= 2
    return None
