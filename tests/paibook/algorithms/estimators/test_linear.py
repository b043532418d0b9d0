"""Linear and ridge regression against scikit-learn, on one rank and on several."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paibook.algorithms.estimators import LinearRegression, Ridge
from paibook.data.shards import Shard
from paibook.errors import DataError, PlanError

GENERATOR = np.random.default_rng(1)
X = GENERATOR.normal(size=(90, 6)) * [1, 10, 0.1, 1, 5, 1] + [100, 0, 0, -3, 0, 1]
Y = X @ [1, 0.2, 30, -1, 0, 2] + GENERATOR.normal(size=90) + 7


def theirs(name: str) -> Any:
    return getattr(pytest.importorskip("sklearn.linear_model"), name)


def fitted(on_ranks: Any, size: int, make: Any, x: Any = X, y: Any = Y) -> list[Any]:
    def fit(comm: Any) -> Any:
        model = make().fit(Shard(x, comm.rank, size), Shard(y, comm.rank, size), comm=comm)
        return model, model.score(Shard(x, comm.rank, size), Shard(y, comm.rank, size), comm=comm)

    return on_ranks(size, fit)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("intercept", [True, False])
def test_least_squares_are_scikit_learns(on_ranks: Any, size: int, intercept: bool) -> None:
    pairs = [
        (lambda: LinearRegression(fit_intercept=intercept), theirs("LinearRegression")(fit_intercept=intercept)),
        (lambda: Ridge(3.0, fit_intercept=intercept), theirs("Ridge")(3.0, fit_intercept=intercept)),
    ]
    for ours, reference in pairs:
        reference.fit(X, Y)
        for model, score in fitted(on_ranks, size, ours):
            np.testing.assert_allclose(model.coef_, reference.coef_, rtol=1e-6, atol=1e-8)
            assert model.intercept_ == pytest.approx(reference.intercept_)
            np.testing.assert_allclose(model.predict(X), reference.predict(X), rtol=1e-6)
            assert score == pytest.approx(reference.score(X, Y))


@pytest.mark.parametrize("size", [1, 3])
def test_wide_rows_go_by_steps(on_ranks: Any, size: int) -> None:
    wide = GENERATOR.normal(size=(40, 60))
    y = wide[:, 0] - wide[:, 1]
    reference = theirs("Ridge")(2.0).fit(wide, y)
    for model, _ in fitted(on_ranks, size, lambda: Ridge(2.0, solver="lbfgs"), wide, y):
        np.testing.assert_allclose(model.coef_, reference.coef_, atol=1e-5)
        assert model.intercept_ == pytest.approx(reference.intercept_, abs=1e-5)


def test_of_many_solutions_the_shortest(on_ranks: Any) -> None:
    twice = np.hstack([X[:, :2], X[:, :2]])
    reference = theirs("LinearRegression")().fit(twice, Y)
    for model, _ in fitted(on_ranks, 2, LinearRegression, twice):
        np.testing.assert_allclose(model.coef_, reference.coef_, rtol=1e-6)


def test_sparse_rows_and_a_rank_without_samples(on_ranks: Any) -> None:
    sparse = pytest.importorskip("scipy.sparse").csr_matrix(X)
    best = Ridge().fit(X, Y)
    for model in on_ranks(2, lambda comm: Ridge().fit(*((sparse, Y) if comm.rank else ([], [])), comm=comm)):
        np.testing.assert_allclose(model.coef_, best.coef_)


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(DataError, match="rank 0: regression needs numbers as y; got <U1"):
        LinearRegression().fit([[1.0]], ["a"])
    with pytest.raises(PlanError, match="alpha is 0 or more"):
        Ridge(-1).fit(X, Y)
    with pytest.raises(PlanError, match=r"Ridge\(solver=...\) is 'auto', 'normal', 'lbfgs'; got 'svd'"):
        Ridge(solver="svd").fit(X, Y)  # type: ignore[arg-type]
