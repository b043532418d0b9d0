"""Linear classifiers: classes known to all ranks, a penalised loss minimised by all of them together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from paibook.algorithms.estimators.base import Estimator, report, same, summed, warn_unless
from paibook.algorithms.estimators.descent import gradient_descent
from paibook.algorithms.estimators.lbfgs import Minimum, lbfgs
from paibook.algorithms.estimators.samples import samples
from paibook.comms.communicator import Communicator
from paibook.comms.positions import group
from paibook.errors import DataError, PlanError

Loss = Callable[[np.ndarray], tuple[float, np.ndarray]]


@dataclass(eq=False)
class LinearClassifier(Estimator):
    """The hyperparameters of logistic and softmax regression, and what follows from their probabilities.

    Args:
        C: The loss's weight against the penalty, as in scikit-learn: the objective is the mean loss plus
            ``1 / (C n)`` times half the squared norm (``"l2"``) or the absolute sum (``"l1"``) of ``coef_``.
        penalty: ``"l2"``, ``"l1"`` or None. The intercept has none.
        solver: ``"lbfgs"`` (OWL-QN for L1) or ``"gd"``, batch gradient descent (proximal for L1).
        fit_intercept: Whether there is one.
        tol: Of the largest entry of the objective's gradient.
        max_iter: Steps at most.
        learning_rate: Of ``"gd"``; found by a line search where None.
        classes: All labels there may be; those of all ranks where None.
    """

    C: float = 1.0
    penalty: Literal["l2", "l1"] | None = "l2"
    solver: Literal["lbfgs", "gd"] = "lbfgs"
    fit_intercept: bool = True
    tol: float = 1e-6
    max_iter: int = 1000
    learning_rate: float | None = None
    classes: Sequence[Any] | None = None

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of each row, ``(n,)``."""
        likeliest = self.predict_proba(X).argmax(axis=1)
        found: np.ndarray = self.classes_[likeliest]
        return found

    def predict_proba(self, X: Any) -> np.ndarray:
        """The classes' probabilities, ``(n, k)``, in the order of ``classes_``."""
        raise NotImplementedError

    def score(self, X: Any, y: Any = None, comm: Communicator | None = None) -> float:
        """The accuracy over all ranks' samples; all ranks call it."""
        comm = group(comm)
        X, y, _ = samples(comm, X, y, known=self._known())
        right, count = summed(comm, np.array([np.sum(self.predict(X) == y), len(y)]))
        return float(right / count)

    def _learn(self, comm: Communicator, width: int, outputs: int, total: int, loss: Loss) -> np.ndarray:
        """The weights ``(width + 1, outputs)``, the intercepts last, that minimise the penalised loss of all ranks.

        Args:
            total: Samples of all ranks.
            loss: The sum of this rank's losses and its gradient, at weights of that shape.
        """
        strength = np.full((width + 1, outputs), 1 / (self.C * total))
        strength[-1] = 0.0
        l2, l1 = (strength.ravel() * (self.penalty == kind) for kind in ("l2", "l1"))

        def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = loss(point.reshape(width + 1, outputs))
            if not self.fit_intercept:
                gradient[-1] = 0.0
            sums = summed(comm, np.append(gradient.ravel(), value)) / total
            return float(sums[-1] + l2 @ point**2 / 2), sums[:-1] + l2 * point

        found = self._minimise(objective, np.zeros(strength.size), l1, comm)
        self.n_iter_, self.converged_ = found.steps, found.converged
        warn_unless(comm, found.converged, f"{type(self).__name__}, after {found.steps} steps,")
        return same(comm, found.point).reshape(width + 1, outputs)

    def _minimise(self, objective: Loss, start: np.ndarray, l1: np.ndarray, comm: Communicator) -> Minimum:
        def tell(step: int, value: float) -> None:
            report(comm, step, loss=value)

        if self.solver == "lbfgs":
            return lbfgs(objective, start, l1, tolerance=self.tol, steps=self.max_iter, report=tell)
        return gradient_descent(
            objective, start, l1, rate=self.learning_rate, tolerance=self.tol, steps=self.max_iter, report=tell
        )

    def _check(self) -> None:
        self._choose("penalty", "l2", "l1", None)
        self._choose("solver", "lbfgs", "gd")
        if not self.C > 0:
            raise PlanError(f"C is a positive number; got {self.C!r}")

    def _codes(self, comm: Communicator, y: np.ndarray) -> np.ndarray:
        """Each label's place among the classes of all ranks, which become ``classes_``."""
        parts = comm.allgather(np.unique(y).tolist())
        kinds = {isinstance(label, str) for part in [*parts, self.classes or ()] for label in part}
        if len(kinds) > 1:
            raise DataError("labels must be numbers or texts, the same on all ranks; y holds both")
        if self.classes is None:
            self.classes_ = np.unique([label for part in parts for label in part])
        else:
            self.classes_ = np.unique(list(self.classes))
            known = set(self.classes_.tolist())
            for rank, part in enumerate(parts):
                unknown = [label for label in part if label not in known]
                if unknown:
                    raise DataError(f"rank {rank}: y holds {unknown[0]!r}, which is none of the classes {self.classes}")
        return np.searchsorted(self.classes_, y) if len(y) else np.zeros(0, dtype=np.int64)
