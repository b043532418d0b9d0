"""Logistic regression of two classes, over as many features as the servers have room for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from paibook.algorithms.ps.additive import AdditiveClassifier
from paibook.algorithms.ps.rows import Batch
from paibook.errors import PlanError
from paibook.runtimes.ps.client import ParameterServer
from paibook.runtimes.ps.optimizers import FTRL


class _Linear(AdditiveClassifier):
    """Log-odds are the rows times the weights."""

    @property
    def coef_(self) -> np.ndarray:
        """The weights, ``(1, d)``; for keys of any size those of ``keys_``."""
        return self._weights("weights").rows.T

    @property
    def keys_(self) -> np.ndarray:
        """The key of each of ``coef_``'s columns."""
        known = self._weights("weights")
        return np.arange(len(known.rows)) if known.keys is None else known.keys

    @property
    def intercept_(self) -> np.ndarray:
        """``(1,)``."""
        return self._weights("intercept").rows

    def _row(self) -> tuple[int, Any]:
        return 1, 0.0

    def _odds(self, batch: Batch, weights: np.ndarray) -> np.ndarray:
        return batch.x @ weights[:, 0]

    def _gradient(self, batch: Batch, weights: np.ndarray, residuals: np.ndarray) -> np.ndarray:
        found: np.ndarray = batch.x.T @ residuals
        return found[:, None]


@dataclass(eq=False)
class SGDLogisticRegression(_Linear):
    """Logistic regression by stochastic gradients; the objective is scikit-learn's ``LogisticRegression``'s.

    The penalty of a weight is paid by the rows in which its feature occurs, in equal parts, as if all workers' rows
    were alike: a batch touches no other keys. ``"l1"`` makes weights small but not exactly zero;
    ``FTRLLogisticRegression`` does.

    Args:
        C: The loss's weight against the penalty.
        penalty: ``"l2"``, ``"l1"`` or None. The intercept has none.

    Attributes:
        coef_, intercept_, keys_, classes_: As properties say.
    """

    C: float = 1.0
    penalty: Literal["l2", "l1"] | None = "l2"

    def _begin(self, ps: ParameterServer | None) -> ParameterServer:
        if not self.C > 0:
            raise PlanError(f"C is a positive number; got {self.C!r}")
        if self.penalty not in ("l2", "l1", None):
            raise PlanError(f"SGDLogisticRegression(penalty=...) is 'l2', 'l1' or None; got {self.penalty!r}")
        return super()._begin(ps)

    def _penalty(self, batch: Batch, weights: np.ndarray) -> np.ndarray | float:
        if self.penalty is None:
            return 0.0
        return batch.shares[:, None] / self.C * (weights if self.penalty == "l2" else np.sign(weights))


@dataclass(eq=False)
class FTRLLogisticRegression(_Linear):
    """Logistic regression by FTRL-Proximal (McMahan et al., "Ad click prediction", KDD 2013): ``l1`` gives exact zeros.

    The servers get the sum of a batch's gradients, as if it were one sample.

    Args:
        alpha, beta: A weight's learning rate is ``alpha / (beta + sqrt(sum of its squared gradients))``.
        l1, l2: Strengths of the penalties. The intercept has none. A weight is zero until its gradients, summed over
            all batches and epochs, exceed ``l1``: more epochs want a larger one.

    Attributes:
        coef_, intercept_, keys_, classes_: As properties say.
    """

    alpha: float = 0.1
    beta: float = 1.0
    l1: float = 1.0
    l2: float = 0.0
    optimizer: Any = field(default=None, init=False, repr=False)

    def _begin(self, ps: ParameterServer | None) -> ParameterServer:
        if not (self.alpha > 0 and self.beta >= 0 and self.l1 >= 0 and self.l2 >= 0):
            given = f"alpha={self.alpha!r}, beta={self.beta!r}, l1={self.l1!r}, l2={self.l2!r}"
            raise PlanError(
                f"FTRLLogisticRegression takes alpha above 0, and beta, l1 and l2 of 0 or more; got {given}"
            )
        self.optimizer = FTRL(self.alpha, self.beta, self.l1, self.l2)
        return super()._begin(ps)

    def _intercept_optimizer(self) -> Any:
        return FTRL(self.alpha, self.beta)

    def _scale(self, samples: int) -> float:
        return 1.0
