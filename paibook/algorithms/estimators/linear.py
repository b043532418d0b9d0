"""Least squares: ordinary and ridge regression."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from paibook.algorithms.estimators.base import Estimator, report, same, summed, warn_unless
from paibook.algorithms.estimators.lbfgs import lbfgs
from paibook.algorithms.estimators.matrices import dense_blocks
from paibook.algorithms.estimators.samples import samples
from paibook.comms.communicator import Communicator
from paibook.comms.positions import group
from paibook.errors import DataError, PlanError

WIDE = 4096  # columns from which the Gram matrix costs more than steps of L-BFGS


@dataclass(eq=False)
class Ridge(Estimator):
    """Ridge regression: the least ``|y - X coef - intercept|² + alpha |coef|²``.

    All-reduce adds up the ranks' Gram matrices ``X.T @ X`` of centered columns, and every rank solves the normal
    equations. They square X's condition: columns that nearly depend on each other lose digits. Wide X, whose Gram
    matrix is large, goes by L-BFGS.

    Args:
        alpha: Of the penalty, as in scikit-learn; the intercept has none.
        fit_intercept: Whether there is one.
        solver: ``"normal"``, ``"lbfgs"``, or ``"auto"``: by the number of columns.
        tol: Of the largest entry of the mean loss's gradient, for L-BFGS.
        max_iter: Its steps at most.

    Attributes:
        coef_: ``(d,)``.
        intercept_: A number.
    """

    alpha: float = 1.0
    fit_intercept: bool = True
    solver: Literal["auto", "normal", "lbfgs"] = "auto"
    tol: float = 1e-8
    max_iter: int = 10_000

    def fit(self, X: Any, y: Any = None, comm: Communicator | None = None) -> Ridge:
        """Learn from all ranks' samples; all ranks call it.

        Args:
            X: This rank's rows ``(n, d)``, as for ``LogisticRegression.fit``.
            y: Their numbers ``(n,)``, or the name of X's column.
            comm: The ranks; the running cell's.

        Raises:
            DataError: On every rank: shapes that disagree, NaN, or labels that are no numbers.
            PlanError: A hyperparameter that cannot be meant.
        """
        solver = self._choose("solver", "auto", "normal", "lbfgs")
        if not self.alpha >= 0:
            raise PlanError(f"alpha is 0 or more; got {self.alpha!r}")
        comm = group(comm)
        X, y, self._form = samples(comm, X, y)
        y = _numbers(comm, y)
        sums = summed(comm, np.concatenate([X.T @ np.ones(len(y)), [y.sum(), len(y)]]))
        means = sums[:-1] / sums[-1] * self.fit_intercept
        wide = X.shape[1] > WIDE if solver == "auto" else solver == "lbfgs"
        solve = self._by_steps if wide else self._by_normal_equations
        self.coef_ = same(comm, solve(comm, X, y - means[-1], means[:-1], int(sums[-1])))
        self.intercept_ = float(means[-1] - means[:-1] @ self.coef_)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Expected numbers, ``(n,)``."""
        found: np.ndarray = self._rows(X) @ self.coef_ + self.intercept_
        return found

    def score(self, X: Any, y: Any = None, comm: Communicator | None = None) -> float:
        """R² over all ranks' samples; all ranks call it."""
        comm = group(comm)
        X, y, _ = samples(comm, X, y, known=self._known())
        y = _numbers(comm, y)
        total, count = summed(comm, np.array([y.sum(), len(y)]))
        missed, spread = summed(comm, np.array([((y - self.predict(X)) ** 2).sum(), ((y - total / count) ** 2).sum()]))
        return float(1 - missed / spread)

    def _by_normal_equations(self, comm: Communicator, X: Any, y: np.ndarray, mean: np.ndarray, n: int) -> np.ndarray:
        d = X.shape[1]
        products = np.zeros((d, d + 1))
        start = 0
        for block in dense_blocks(X):
            centered = block - mean
            products[:, :d] += centered.T @ centered
            products[:, d] += centered.T @ y[start : start + len(block)]
            start += len(block)
        products = summed(comm, products)
        gram, moments = products[:, :d], products[:, d]
        if self.alpha:
            return np.linalg.solve(gram + self.alpha * np.eye(d), moments)
        return np.linalg.lstsq(gram, moments, rcond=None)[0]  # of many solutions the shortest

    def _by_steps(self, comm: Communicator, X: Any, y: np.ndarray, mean: np.ndarray, n: int) -> np.ndarray:
        def objective(coef: np.ndarray) -> tuple[float, np.ndarray]:
            misses = X @ coef - mean @ coef - y
            gradient = X.T @ misses - mean * misses.sum()
            sums = summed(comm, np.append(gradient, misses @ misses / 2)) / n
            return float(sums[-1] + self.alpha / n * coef @ coef / 2), sums[:-1] + self.alpha / n * coef

        def tell(step: int, value: float) -> None:
            report(comm, step, loss=value)

        found = lbfgs(objective, np.zeros(X.shape[1]), tolerance=self.tol, steps=self.max_iter, report=tell)
        warn_unless(comm, found.converged, f"{type(self).__name__}, after {found.steps} steps,")
        return found.point


@dataclass(eq=False)
class LinearRegression(Ridge):
    """Ordinary least squares: ``Ridge`` without a penalty; of many solutions the shortest.

    Arguments and attributes: ``Ridge``, without ``alpha``.
    """

    alpha: float = field(default=0.0, init=False, repr=False)


def _numbers(comm: Communicator, y: np.ndarray) -> np.ndarray:
    wrong = comm.allgather("" if y.dtype.kind in "biuf" or not len(y) else str(y.dtype))
    for rank, kind in enumerate(wrong):
        if kind:
            raise DataError(f"rank {rank}: regression needs numbers as y; got {kind}")
    return y.astype(np.float64) if len(y) else np.zeros(0)
