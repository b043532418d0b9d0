"""Factorisation machines: right gradients, and interactions that no linear model sees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import roc_auc_score

import paibook as pai
from paibook.algorithms import FactorizationMachine, FieldAwareFactorizationMachine, SGDLogisticRegression
from paibook.algorithms.ps.rows import keyed_rows
from paibook.errors import DataError, PlanError

FIELDS = np.array([0, 0, 1, 1, 1, 2])


def by_definition(model: Any, x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Log-odds as the papers write them: a sum over pairs."""
    odds = x @ weights[:, 0]
    for i in range(x.shape[1]):
        for j in range(i + 1, x.shape[1]):
            v = weights[:, 1:].reshape(x.shape[1], -1, model.factors)
            a, b = (FIELDS[j], FIELDS[i]) if v.shape[1] > 1 else (0, 0)
            odds = odds + v[i, a] @ v[j, b] * x[:, i] * x[:, j]
    return odds


@pytest.mark.parametrize("model", [FactorizationMachine(factors=3), FieldAwareFactorizationMachine(3, fields=FIELDS)])
def test_odds_and_gradients_are_those_of_the_definition(model: Any) -> None:
    chance = np.random.default_rng(0)
    x = chance.normal(size=(7, 6)) * (chance.random((7, 6)) < 0.6)
    weights = chance.normal(size=(6, model._row()[0]))
    batch = keyed_rows(sparse.csr_matrix(x)).batch(np.arange(7))
    assert len(batch.keys) == 6
    np.testing.assert_allclose(model._odds(batch, weights), by_definition(model, x, weights))
    residuals = chance.normal(size=7)
    gradient = model._gradient(batch, weights, residuals)
    for index in np.ndindex(weights.shape):
        step = np.zeros_like(weights)
        step[index] = 1e-5
        change = by_definition(model, x, weights + step) - by_definition(model, x, weights - step)
        assert gradient[index] == pytest.approx(residuals @ change / 2e-5, abs=1e-6)


def interactions(rows: int, users: int = 40, items: int = 30) -> tuple[Any, np.ndarray, np.ndarray]:
    """A user likes an item where hidden tastes agree; neither says anything by itself."""
    chance = np.random.default_rng(3)
    taste, kind = chance.normal(size=(users, 2)), chance.normal(size=(items, 2))
    user, item = chance.integers(0, users, rows), chance.integers(0, items, rows)
    likes = (taste[user] * kind[item]).sum(axis=1) + 0.3 * chance.normal(size=rows) > 0
    keys = np.stack([user, users + item], axis=1).ravel()
    x = sparse.csr_matrix((np.ones(2 * rows), keys, np.arange(rows + 1) * 2), (rows, users + items))
    return x, likes.astype(int), np.repeat([0, 1], [users, items])


def test_they_see_interactions_that_a_linear_model_does_not(fitted: Any) -> None:
    x, y, fields = interactions(8000)
    half = 4000
    area = {}
    options: dict[str, Any] = {"epochs": 20, "init_scale": 0.1, "optimizer": pai.Adagrad(0.2), "l2": 0.3}
    for model in (
        SGDLogisticRegression(epochs=20),
        FactorizationMachine(factors=4, **options),
        FieldAwareFactorizationMachine(factors=4, fields=fields, **options),
    ):
        found = fitted(model, x[:half], y[:half])
        area[type(model).__name__] = roc_auc_score(y[half:], found.decision_function(x[half:]))
    assert area["SGDLogisticRegression"] < 0.65
    assert area["FactorizationMachine"] > 0.9
    assert area["FieldAwareFactorizationMachine"] > 0.9


def test_what_cannot_be_meant_is_refused(fitted: Any) -> None:
    x, y, fields = interactions(50)
    with pytest.raises(PlanError, match=r"factors of 1 or more, l2 of 0 or more; got 0, 0.0"):
        fitted(FactorizationMachine(factors=0), x, y)
    with pytest.raises(PlanError, match="fields gives the field of each key"):
        fitted(FieldAwareFactorizationMachine(), x, y)
    with pytest.raises(DataError, match="fields of keys 0 to 2; X has key"):
        fitted(FieldAwareFactorizationMachine(fields=fields[:3]), x, y)
