"""Principal components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from paibook.algorithms.estimators.base import Estimator, same, summed
from paibook.algorithms.estimators.matrices import dense_blocks
from paibook.algorithms.estimators.samples import samples
from paibook.comms.communicator import Communicator
from paibook.comms.positions import group
from paibook.errors import DataError, PlanError


@dataclass(eq=False)
class PCA(Estimator):
    """Principal component analysis (Pearson, 1901) by the covariance matrix, which all-reduce adds up.

    Args:
        n_components: How many to keep; as many as there can be where None.

    Attributes:
        components_: ``(k, d)``, rows of length 1 whose largest entry is positive.
        explained_variance_, explained_variance_ratio_, singular_values_: ``(k,)``.
        mean_: ``(d,)``.
        n_samples_: Rows of all ranks.
    """

    n_components: int | None = None

    def fit(self, X: Any, comm: Communicator | None = None) -> PCA:
        """Learn from all ranks' rows; all ranks call it.

        Args:
            X: This rank's rows ``(n, d)``, as for ``LogisticRegression.fit``.
            comm: The ranks; the running cell's.

        Raises:
            DataError: On every rank: shapes that disagree, NaN, fewer than two rows.
            PlanError: More components than there can be.
        """
        comm = group(comm)
        X, _, self._form = samples(comm, X, labelled=False)
        sums = summed(comm, np.append(X.T @ np.ones(X.shape[0]), X.shape[0]))
        total, self.mean_ = int(sums[-1]), sums[:-1] / sums[-1]
        kept = self._kept(total, X.shape[1])
        scatter = np.zeros((X.shape[1], X.shape[1]))
        for block in dense_blocks(X):
            scatter += (block - self.mean_).T @ (block - self.mean_)
        values, vectors = np.linalg.eigh(summed(comm, scatter) / (total - 1))
        variances, components = np.maximum(values[::-1], 0.0), vectors.T[::-1]
        largest = components[np.arange(len(components)), np.abs(components).argmax(axis=1)]
        self.components_ = same(comm, (components * np.sign(largest)[:, None])[:kept])
        self.explained_variance_ = same(comm, variances[:kept])
        self.explained_variance_ratio_ = self.explained_variance_ / variances.sum()
        self.singular_values_ = np.sqrt(self.explained_variance_ * (total - 1))
        self.n_samples_ = total
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Rows in the components' coordinates, ``(n, k)``."""
        found: np.ndarray = self._rows(X) @ self.components_.T - self.mean_ @ self.components_.T
        return found

    def fit_transform(self, X: Any, comm: Communicator | None = None) -> np.ndarray:
        """``fit``, then this rank's rows in the components' coordinates, ``(n, k)``; all ranks call it."""
        return self.fit(X, comm).transform(X)

    def inverse_transform(self, Z: Any) -> np.ndarray:
        """Coordinates ``(n, k)`` as rows ``(n, d)``."""
        self._known()
        found: np.ndarray = np.asarray(Z) @ self.components_ + self.mean_
        return found

    def _kept(self, total: int, width: int) -> int:
        if total < 2:
            raise DataError("principal components need two rows or more")
        most = min(total, width)
        kept = most if self.n_components is None else self.n_components
        if not 1 <= kept <= most:
            raise PlanError(f"n_components is from 1 to {most} ({total} rows, {width} features); got {kept!r}")
        return kept
