"""Logistic regression of two classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from paibook.algorithms.estimators.classifiers import LinearClassifier
from paibook.algorithms.estimators.samples import samples
from paibook.comms.communicator import Communicator
from paibook.comms.positions import group
from paibook.errors import DataError


@dataclass(eq=False)
class LogisticRegression(LinearClassifier):
    """Logistic regression: ``P(second class) = 1 / (1 + exp(-(x @ coef + intercept)))``.

    Each rank computes the loss and the gradient of its own rows; all-reduce adds them up, and every rank takes the same
    step of L-BFGS (Liu & Nocedal, 1989) or, for L1, of OWL-QN (Andrew & Gao, 2007). Arguments: ``LinearClassifier``.

    Attributes:
        coef_: ``(1, d)``.
        intercept_: ``(1,)``.
        classes_: The two labels, sorted.
        n_iter_, converged_: Steps made, and whether the gradient came below ``tol``.
    """

    def fit(self, X: Any, y: Any = None, comm: Communicator | None = None) -> LogisticRegression:
        """Learn from all ranks' samples; all ranks call it.

        Args:
            X: This rank's rows ``(n, d)``: an array, scipy matrix, DataFrame, table of LIBSVM rows, or a shard of one.
            y: Their labels ``(n,)``, or the name of X's column; a table of LIBSVM rows has its own.
            comm: The ranks; the running cell's.

        Raises:
            DataError: On every rank: shapes that disagree, NaN, not two classes, or one that is not in ``classes``.
            PlanError: A hyperparameter that cannot be meant.
        """
        self._check()
        comm = group(comm)
        X, y, self._form = samples(comm, X, y)
        sides = 2.0 * self._codes(comm, y) - 1  # -1 and 1
        if len(self.classes_) != 2:
            shown = ", ".join(map(str, self.classes_[:5].tolist()))
            raise DataError(
                f"LogisticRegression tells two classes apart, such as 0 and 1; y holds {len(self.classes_)}: {shown}"
                "; SoftmaxRegression takes more"
            )

        def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
            margins = sides * (X @ weights[:-1, 0] + weights[-1, 0])
            pulls = -sides * expit(-margins)
            return float(np.logaddexp(0, -margins).sum()), np.append(X.T @ pulls, pulls.sum())[:, None]

        total = comm.allreduce(len(y))
        weights = self._learn(comm, X.shape[1], 1, total, loss)
        self.coef_, self.intercept_ = weights[:-1].T, weights[-1]
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Log-odds of the second class, ``(n,)``."""
        odds: np.ndarray = self._rows(X) @ self.coef_[0] + self.intercept_[0]
        return odds

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of both classes, ``(n, 2)``."""
        second = expit(self.decision_function(X))
        return np.stack([1 - second, second], axis=1)


def expit(odds: np.ndarray) -> np.ndarray:
    """The logistic function, ``1 / (1 + exp(-odds))``, without overflow."""
    return (1 + np.tanh(odds / 2)) / 2
