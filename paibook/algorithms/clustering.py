"""Clustering: k-means, a step at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paibook.algorithms import cells
from paibook.algorithms.tables import sample
from paibook.errors import DataError, PlanError


@dataclass(frozen=True)
class Clusters:
    """What k-means found.

    Attributes:
        centers: ``(k, d)``.
        sizes: Points of each center, ``(k,)``.
        inertia: Sum of squared distances of the points to their nearest center, before the last step moved it.
        steps: How many were made.
        converged: Whether the centers came to rest.
    """

    centers: np.ndarray
    sizes: np.ndarray
    inertia: float
    steps: int
    converged: bool


def k_means_step(
    inputs: Any, centers: Any, *, columns: Sequence[str] = (), **options: Any
) -> tuple[np.ndarray, np.ndarray, float]:
    """Assign each point to its nearest center and move each center to the mean of its points.

    Args:
        inputs: Records with these columns, or sequences of numbers.
        centers: ``(k, d)``.
        columns: The d columns; none where records are sequences.
        options: ``session``, ``workers``, and options of ``%%pai_mapreduce``.

    Returns:
        The new centers ``(k, d)`` (one without points stays), their sizes ``(k,)``, and the inertia before the step.

    Raises:
        PlanError: Centers that are no table of finite numbers.
    """
    old = np.array(centers, dtype=float)
    if old.ndim != 2 or not len(old) or not np.isfinite(old).all():
        raise PlanError(f"centers are k rows of d finite numbers; got an array of shape {old.shape}")
    if columns and len(columns) != old.shape[1]:
        raise PlanError(f"the centers have {old.shape[1]} coordinates, but {len(columns)} columns are named")
    found = cells.run("k_means_step", inputs, {"centers": old.tolist(), "columns": list(columns)}, **options)
    new, sizes = old.copy(), np.zeros(len(old), dtype=int)
    if len(found):
        clusters = found["cluster"].to_numpy()
        new[clusters], sizes[clusters] = np.stack(found["center"].to_list()), found["size"].to_numpy()
    return new, sizes, float(found["inertia"].sum()) if len(found) else 0.0


def k_means(
    inputs: Any,
    k: int | None = None,
    *,
    columns: Sequence[str] = (),
    centers: Any = None,
    steps: int = 20,
    tolerance: float = 1e-4,
    seed: int = 0,
    **options: Any,
) -> Clusters:
    """Cluster points by Lloyd's algorithm: one MapReduce run for each step.

    Args:
        inputs: As in ``k_means_step``.
        k: How many clusters; their first centers are k points drawn at random.
        columns: As in ``k_means_step``.
        centers: The first centers ``(k, d)`` instead.
        steps: At most.
        tolerance: Centers are at rest when no one moved further than this.
        seed: Of the draw.
        options: As in ``k_means_step``.

    Raises:
        PlanError: Neither k nor centers, or no steps.
        DataError: Fewer points than clusters.
    """
    if (k is None) == (centers is None) or steps < 1:
        raise PlanError("k-means needs either k or centers, and 1 step or more")
    current = np.array(centers, dtype=float) if k is None else _drawn(inputs, k, columns, seed, options)
    step, moved = 0, np.inf
    while step < steps and moved > tolerance:
        step += 1
        new, sizes, inertia = k_means_step(inputs, current, columns=columns, **options)
        moved = float(np.sqrt(((new - current) ** 2).sum(axis=1)).max())
        current = new
    return Clusters(current, sizes, inertia, step, moved <= tolerance)


def _drawn(inputs: Any, k: int, columns: Sequence[str], seed: int, options: dict[str, Any]) -> np.ndarray:
    points = sample(inputs, k, seed=seed, **options)
    if len(points) < k:
        raise DataError(f"there are {len(points)} points, too few for {k} clusters")
    rows = points[list(columns)].to_numpy() if columns else points
    return np.array(rows, dtype=float)
