"""Softmax (multinomial logistic) regression."""

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
class SoftmaxRegression(LinearClassifier):
    """Softmax regression: ``P(class) = softmax(x @ coef.T + intercept)``; for any number of classes.

    As ``LogisticRegression``, with a row of coefficients for each class. Arguments: ``LinearClassifier``.

    Attributes:
        coef_: ``(k, d)``.
        intercept_: ``(k,)``; their sum is 0.
        classes_: The labels, sorted.
        n_iter_, converged_: Steps made, and whether the gradient came below ``tol``.
    """

    def fit(self, X: Any, y: Any = None, comm: Communicator | None = None) -> SoftmaxRegression:
        """Learn from all ranks' samples; all ranks call it. Arguments and errors: ``LogisticRegression.fit``."""
        self._check()
        comm = group(comm)
        X, y, self._form = samples(comm, X, y)
        codes = self._codes(comm, y)
        if len(self.classes_) < 2:
            raise DataError(f"SoftmaxRegression needs two classes or more; y holds {self.classes_.tolist()}")
        rows = np.arange(len(y))

        def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
            logs = log_softmax(X @ weights[:-1] + weights[-1])
            pulls = np.exp(logs)
            pulls[rows, codes] -= 1
            return -float(logs[rows, codes].sum()), np.vstack([X.T @ pulls, pulls.sum(axis=0)])

        weights = self._learn(comm, X.shape[1], len(self.classes_), comm.allreduce(len(y)), loss)
        self.coef_, self.intercept_ = weights[:-1].T, weights[-1]
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Scores whose softmax are the probabilities, ``(n, k)``."""
        scores: np.ndarray = self._rows(X) @ self.coef_.T + self.intercept_
        return scores

    def predict_proba(self, X: Any) -> np.ndarray:
        """The classes' probabilities, ``(n, k)``."""
        return np.exp(log_softmax(self.decision_function(X)))


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """The logarithm of each row's softmax, without overflow."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    logs: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs
