"""Factorisation machines: linear models that also weigh every pair of features, by the product of their factors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paibook.algorithms.estimators.matrices import gathered
from paibook.algorithms.ps.additive import AdditiveClassifier
from paibook.algorithms.ps.rows import Batch, Rows, keyed_rows
from paibook.errors import DataError, PlanError
from paibook.runtimes.ps.client import ParameterServer, Table
from paibook.runtimes.ps.initializers import Normal


@dataclass(eq=False)
class FactorizationMachine(AdditiveClassifier):
    """Factorisation machine of order two (Rendle, ICDM 2010), for two classes.

    Log-odds are ``b + sum(w[i] x[i]) + sum over pairs i < j of (v[i] @ v[j]) x[i] x[j]``, in time linear in a row's
    entries. A key's row on the servers is its ``w`` and its ``v``.

    Args:
        factors: Length of ``v``.
        l2: Strength of the penalty, the half squared norm of all weights.
        init_scale: Standard deviation of the first ``v`` and ``w``.
    """

    factors: int = 8
    l2: float = 0.0
    init_scale: float = 0.01

    def _begin(self, ps: ParameterServer | None) -> ParameterServer:
        if not (isinstance(self.factors, (int, np.integer)) and self.factors > 0 and self.l2 >= 0):
            name = type(self).__name__
            raise PlanError(f"{name} takes factors of 1 or more, l2 of 0 or more; got {self.factors!r}, {self.l2!r}")
        return super()._begin(ps)

    def _row(self) -> tuple[int, Any]:
        return 1 + self.factors, Normal(self.init_scale, self.seed)

    def _odds(self, batch: Batch, weights: np.ndarray) -> np.ndarray:
        w, v = weights[:, 0], weights[:, 1:]
        pairs = (batch.x @ v) ** 2 - batch.squares @ v**2  # twice the sum over pairs
        found: np.ndarray = batch.x @ w + pairs.sum(axis=1) / 2
        return found

    def _gradient(self, batch: Batch, weights: np.ndarray, residuals: np.ndarray) -> np.ndarray:
        v = weights[:, 1:]
        for_w = (batch.x.T @ residuals)[:, None]
        for_v = batch.x.T @ (residuals[:, None] * (batch.x @ v)) - v * (batch.squares.T @ residuals)[:, None]
        return np.hstack([for_w, for_v])

    def _penalty(self, batch: Batch, weights: np.ndarray) -> np.ndarray | float:
        return self.l2 * batch.shares[:, None] * weights


@dataclass(eq=False)
class FieldAwareFactorizationMachine(FactorizationMachine):
    """Field-aware factorisation machine (Juan et al., RecSys 2016), for two classes.

    As ``FactorizationMachine``, but a feature has a factor for each field that it may meet: a pair weighs
    ``v[i, field of j] @ v[j, field of i]``.

    Args:
        fields: The field of each key, 0 or more, ``(d,)``; keys are below d.
    """

    factors: int = 4
    fields: Sequence[int] | np.ndarray = ()

    def _begin(self, ps: ParameterServer | None) -> ParameterServer:
        given = np.asarray(self.fields)
        if given.ndim != 1 or not len(given) or given.dtype.kind not in "iu" or given.min() < 0:
            raise PlanError(f"fields gives the field of each key, whole numbers of 0 or more; got {self.fields!r}")
        return super()._begin(ps)

    def decision_function(self, X: Any) -> np.ndarray:
        """Log-odds of the second class, ``(n,)``."""
        self._check_keys(keyed_rows(X))
        return super().decision_function(X)

    def _declare(self, ps: ParameterServer, rows: Rows) -> tuple[Table, Table]:
        self._check_keys(rows)
        return super()._declare(ps, rows)

    def _check_keys(self, rows: Rows) -> None:
        wrong = rows.keys[(rows.keys < 0) | (rows.keys >= len(self.fields))]
        if len(wrong):
            raise DataError(f"fields has the fields of keys 0 to {len(self.fields) - 1}; X has key {wrong[0]}")

    def _row(self) -> tuple[int, Any]:
        return 1 + self._count * self.factors, Normal(self.init_scale, self.seed)

    def _odds(self, batch: Batch, weights: np.ndarray) -> np.ndarray:
        _, meetings, own = self._parts(batch, weights)
        # meetings[row, a, b]: the sum over the row's entries of field a of their factors for field b.
        pairs = np.einsum("nabk,nbak->n", meetings, meetings) - batch.squares @ (own**2).sum(axis=1)
        found: np.ndarray = batch.x @ weights[:, 0] + pairs / 2
        return found

    def _gradient(self, batch: Batch, weights: np.ndarray, residuals: np.ndarray) -> np.ndarray:
        v, meetings, own = self._parts(batch, weights)
        met = (meetings.swapaxes(1, 2) * residuals[:, None, None, None]).reshape(-1, v.shape[1])
        for_v = gathered(met, self._slots(batch), batch.x.values, batch.x.columns, len(v))
        keys = np.arange(len(v))
        shaped = for_v.reshape(len(v), self._count, -1)
        shaped[keys, self._field(batch)] -= own * (batch.squares.T @ residuals)[:, None]
        return np.hstack([(batch.x.T @ residuals)[:, None], for_v])

    @property
    def _count(self) -> int:
        return int(np.max(self.fields)) + 1

    def _field(self, batch: Batch) -> np.ndarray:
        found: np.ndarray = np.asarray(self.fields)[batch.keys]
        return found

    def _slots(self, batch: Batch) -> np.ndarray:
        """For each entry the number of its row and field."""
        return batch.x.entry_rows * self._count + self._field(batch)[batch.x.columns]

    def _parts(self, batch: Batch, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Factors ``(u, fields * k)``; their sums by row and field; each key's factor for its own field ``(u, k)``."""
        v, rows, fields = weights[:, 1:], batch.x.shape[0], self._count
        meetings = gathered(v, batch.x.columns, batch.x.values, self._slots(batch), rows * fields)
        own = v.reshape(len(v), fields, -1)[np.arange(len(v)), self._field(batch)]
        return v, meetings.reshape(rows, fields, fields, -1), own
