"""k-means: Lloyd's algorithm from centers that k-means++ chose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from paibook.algorithms.estimators.base import Estimator, report, same, summed, warn_unless
from paibook.algorithms.estimators.matrices import BLOCK, dense_blocks
from paibook.algorithms.estimators.samples import samples
from paibook.comms.communicator import Communicator
from paibook.comms.positions import group
from paibook.errors import DataError, PlanError


@dataclass(eq=False)
class KMeans(Estimator):
    """k-means (Lloyd, 1982): sums and counts of each center's points are added up by all-reduce, in every step.

    The first centers are drawn from all ranks' rows by k-means++ (Arthur & Vassilvitskii, 2007), each the best of some
    draws, as in scikit-learn.

    Args:
        n_clusters: k.
        init: ``"k-means++"``, or the first centers ``(k, d)``.
        max_iter: Steps at most.
        tol: Centers are at rest when their squared moves sum up to no more than this share of X's mean variance.
        random_state: Seed of the draws.

    Attributes:
        cluster_centers_: ``(k, d)``. One that loses its points stays.
        labels_: The center of each row of this rank, ``(n,)``; it stays on the rank when the model is sent or pulled.
        inertia_: Sum over all ranks of the squared distances to the nearest center.
        n_iter_: Steps made.
    """

    n_clusters: int = 8
    init: Any = "k-means++"
    max_iter: int = 300
    tol: float = 1e-4
    random_state: int = 0

    def fit(self, X: Any, comm: Communicator | None = None) -> KMeans:
        """Learn from all ranks' rows; all ranks call it.

        Args:
            X: This rank's rows ``(n, d)``, as for ``LogisticRegression.fit``.
            comm: The ranks; the running cell's.

        Raises:
            DataError: On every rank: shapes that disagree, NaN, fewer rows than clusters.
            PlanError: First centers of another shape.
        """
        comm = group(comm)
        X, _, self._form = samples(comm, X, labelled=False)
        X, norms, mean, variance = self._centered(comm, X)
        centers = self._first_centers(comm, X, norms, mean)
        moved, step = np.inf, 0
        while step < self.max_iter and moved > self.tol * variance:
            step += 1
            new, inertia = _moved(comm, X, norms, centers)
            moved, centers = float(((new - centers) ** 2).sum()), new
            report(comm, step, inertia=inertia)
        warn_unless(comm, moved <= self.tol * variance, f"KMeans, after {step} steps,")
        self.n_iter_ = step
        self.labels_, nearest = _nearest(X, norms, centers)
        self.inertia_ = float(summed(comm, np.array([nearest.sum()]))[0])
        self.cluster_centers_ = same(comm, centers + mean)
        return self

    def fit_predict(self, X: Any, comm: Communicator | None = None) -> np.ndarray:
        """``fit``, then the center of each of this rank's rows, ``(n,)``; all ranks call it."""
        return self.fit(X, comm).labels_

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "labels_"}

    def predict(self, X: Any) -> np.ndarray:
        """The nearest center of each row, ``(n,)``."""
        return _nearest(*self._near_origin(self._rows(X)))[0]

    def transform(self, X: Any) -> np.ndarray:
        """The distance of each row to each center, ``(n, k)``."""
        return np.sqrt(_distances(*self._near_origin(self._rows(X))))

    def score(self, X: Any, comm: Communicator | None = None) -> float:
        """The negative inertia of all ranks' rows; all ranks call it."""
        comm = group(comm)
        rows, _, _ = samples(comm, X, labelled=False, known=self._known())
        _, nearest = _nearest(*self._near_origin(rows))
        return -float(summed(comm, np.array([nearest.sum()]))[0])

    def _centered(self, comm: Communicator, X: Any) -> tuple[Any, np.ndarray, np.ndarray, float]:
        """Rows, their squared norms, what was subtracted from them, and the mean variance of X's columns."""
        sums = summed(comm, np.append(X.T @ np.ones(X.shape[0]), X.shape[0]))
        total, mean = int(sums[-1]), sums[:-1] / sums[-1]
        if total < self.n_clusters:
            raise DataError(f"there are {total} rows, too few for {self.n_clusters} clusters")
        # Distances are differences of products, which keep their digits near the origin; sparse rows would fill up.
        if comm.allreduce(isinstance(X, np.ndarray), comm.LAND):
            X, shift = X - mean, mean
        else:
            shift = np.zeros(len(mean))
        norms = _squared_norms(X)
        square = float(summed(comm, np.array([norms.sum()]))[0]) / total
        return X, norms, shift, max(0.0, square - float((mean - shift) @ (mean - shift))) / len(mean)

    def _near_origin(self, X: Any) -> tuple[Any, np.ndarray, np.ndarray]:
        """Rows, their squared norms and the centers; dense ones moved together."""
        shift = self.cluster_centers_.mean(axis=0) if isinstance(X, np.ndarray) else 0.0
        X = X - shift if isinstance(X, np.ndarray) else X
        return X, _squared_norms(X), self.cluster_centers_ - shift

    def _first_centers(self, comm: Communicator, X: Any, norms: np.ndarray, mean: np.ndarray) -> np.ndarray:
        if isinstance(self.init, str):
            self._choose("init", "k-means++")
            return _plus_plus(comm, X, norms, self.n_clusters, self.random_state)
        centers = np.asarray(self.init, dtype=np.float64)
        if centers.shape != (self.n_clusters, X.shape[1]) or not np.isfinite(centers).all():
            expected = f"finite numbers of shape ({self.n_clusters}, {X.shape[1]})"
            raise PlanError(f"KMeans(init=...) is 'k-means++' or {expected}; got shape {centers.shape}")
        return centers - mean


def _plus_plus(comm: Communicator, X: Any, norms: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Centers drawn one by one, a row with a chance that grows as its squared distance to the nearest drawn before."""
    generator = np.random.default_rng(seed)  # the same draws on every rank
    nearest, centers = np.ones(len(norms)), np.zeros((k, X.shape[1]))
    for i in range(k):
        drawn = _drawn(comm, X, nearest, generator.random(1 if i == 0 else 2 + int(np.log(k))))
        distances = _distances(X, norms, drawn)
        closer = distances if i == 0 else np.minimum(nearest[:, None], distances)
        best = int(summed(comm, closer.sum(axis=0)).argmin())
        centers[i], nearest = drawn[best], closer[:, best]
    return centers


def _drawn(comm: Communicator, X: Any, weights: np.ndarray, chances: np.ndarray) -> np.ndarray:
    """One of all ranks' rows for each number from 0 to 1, as likely as its weight."""
    ends = np.cumsum(comm.allgather(float(weights.sum())))
    if not ends[-1]:  # every row lies on a center
        return _drawn(comm, X, np.ones(len(weights)), chances)
    begins = np.concatenate([[0.0], ends[:-1]])
    rows = np.zeros((len(chances), X.shape[1]))
    for i, place in enumerate(chances * ends[-1]):
        if len(weights) and begins[comm.rank] <= place < ends[comm.rank]:
            row = int(np.searchsorted(np.cumsum(weights), place - begins[comm.rank], side="right"))
            row = min(row, len(weights) - 1)
            rows[i] = next(dense_blocks(X[row : row + 1]))[0]
    return summed(comm, rows)


def _moved(comm: Communicator, X: Any, norms: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, float]:
    """The means of all ranks' points of each center, and the inertia before the move."""
    k, d = centers.shape
    sums = np.zeros((k + 1, d + 1))  # of the points, and how many; in the corner the inertia
    for rows in _blocks(len(norms), max(k, d)):
        labels, nearest = _nearest(X[rows], norms[rows], centers)
        belongs = (labels[:, None] == np.arange(k)).astype(np.float64)
        sums[:k, :d] += (X[rows].T @ belongs).T
        sums[:k, d] += belongs.sum(axis=0)
        sums[k, d] += nearest.sum()
    sums = summed(comm, sums)
    counts = sums[:k, d:]
    return np.where(counts > 0, sums[:k, :d] / np.maximum(counts, 1), centers), float(sums[k, d])


def _nearest(X: Any, norms: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each row's nearest center, and its squared distance."""
    labels, nearest = np.zeros(len(norms), dtype=np.int64), np.zeros(len(norms))
    for rows in _blocks(len(norms), max(centers.shape)):
        distances = _distances(X[rows], norms[rows], centers)
        labels[rows], nearest[rows] = distances.argmin(axis=1), distances.min(axis=1)
    return labels, nearest


def _distances(X: Any, norms: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Squared distances ``(n, k)``."""
    found = norms[:, None] - 2 * (X @ centers.T) + (centers**2).sum(axis=1)
    return np.maximum(found, 0.0)


def _squared_norms(X: Any) -> np.ndarray:
    found = [np.einsum("ij,ij->i", block, block) for block in dense_blocks(X)]
    return np.concatenate([np.zeros(0), *found])


def _blocks(count: int, width: int) -> Iterator[slice]:
    rows = max(1, BLOCK // max(1, width))
    return (slice(start, start + rows) for start in range(0, count, rows))
