"""Logistic and softmax regression against scikit-learn, on one rank and on several."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from paibook.algorithms.estimators import LogisticRegression, SoftmaxRegression
from paibook.data.shards import Shard
from paibook.errors import DataError, PlanError, RunError
from paibook.runtimes.shards import shard

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(120, 5)) * [1, 2, 0.5, 1, 3] + [0, 1, 0, -2, 0]
Y = (X @ [1, -1, 2, 0, 0.3] + GENERATOR.normal(size=120) > -1).astype(int)
K = np.digitize(X @ [0.5, 1, 0, 1, 0] + GENERATOR.normal(size=120), [-3, 0])


def fitted(on_ranks: Any, size: int, model: Any, x: Any = X, y: Any = Y) -> Any:
    """The model as rank 0 knows it, once all ranks have fitted their shards to the same numbers."""
    import copy

    def fit(comm: Any) -> Any:
        own = copy.deepcopy(model)
        return own.fit(Shard(x, comm.rank, size), Shard(y, comm.rank, size), comm=comm)

    models = on_ranks(size, fit)
    for other in models[1:]:
        np.testing.assert_array_equal(other.coef_, models[0].coef_)
        np.testing.assert_array_equal(other.intercept_, models[0].intercept_)
    return models[0]


def reference(**options: Any) -> Any:
    linear = pytest.importorskip("sklearn.linear_model")
    return linear.LogisticRegression(tol=1e-8, max_iter=100_000, **options)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("C", [0.1, 10.0])
@pytest.mark.parametrize("intercept", [True, False])
def test_logistic_regression_is_scikit_learns(on_ranks: Any, size: int, C: float, intercept: bool) -> None:
    theirs = reference(C=C, fit_intercept=intercept).fit(X, Y)
    ours = fitted(on_ranks, size, LogisticRegression(C=C, fit_intercept=intercept, tol=1e-8))
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-5)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-5)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    assert ours.score(X, Y) == pytest.approx(theirs.score(X, Y))
    assert ours.converged_


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("solver", ["lbfgs", "gd"])
def test_l1_is_scikit_learns(on_ranks: Any, size: int, solver: Any) -> None:
    theirs = reference(C=0.1, l1_ratio=1.0, solver="saga").fit(X, Y)
    ours = fitted(on_ranks, size, LogisticRegression(C=0.1, penalty="l1", solver=solver, tol=1e-8, max_iter=20_000))
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-5)
    np.testing.assert_array_equal(ours.coef_ == 0, theirs.coef_ == 0)
    assert (ours.coef_ == 0).any()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_softmax_regression_is_scikit_learns(on_ranks: Any, size: int) -> None:
    names = np.array(["low", "middle", "top"])[K]
    theirs = reference(C=2.0).fit(X, names)
    ours = fitted(on_ranks, size, SoftmaxRegression(C=2.0, tol=1e-8), y=names)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-5)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-5)
    assert ours.predict(X).tolist() == theirs.predict(X).tolist()


def test_gradient_descent_ends_where_lbfgs_does(on_ranks: Any) -> None:
    best = fitted(on_ranks, 1, LogisticRegression())
    found = fitted(on_ranks, 2, LogisticRegression(solver="gd", max_iter=20_000))
    np.testing.assert_allclose(found.coef_, best.coef_, atol=1e-4)
    with pytest.warns(UserWarning, match="stopped before it converged"):
        slow = LogisticRegression(solver="gd", learning_rate=0.1, max_iter=20).fit(X, Y)
    assert slow.n_iter_ == 20
    assert not slow.converged_
    np.testing.assert_allclose(
        LogisticRegression(solver="gd", learning_rate=0.1, max_iter=20_000).fit(X, Y).coef_,
        best.coef_,
        atol=1e-4,
    )


def test_a_learning_rate_that_is_too_large() -> None:
    with np.errstate(all="ignore"), pytest.raises(RunError, match="learning_rate=1e\\+200 is too large"):
        LogisticRegression(solver="gd", learning_rate=1e200, C=1e-200).fit(X, Y)


def test_without_a_penalty_the_gradient_is_zero(on_ranks: Any) -> None:
    model = fitted(on_ranks, 2, LogisticRegression(penalty=None))
    misses = model.predict_proba(X)[:, 1] - Y
    assert np.abs(X.T @ misses).max() / len(Y) < 1e-6
    assert abs(misses.mean()) < 1e-6


@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_form_of_rows_gives_the_same(on_ranks: Any, tmp_path: Path, size: int) -> None:
    best = LogisticRegression().fit(X, Y)
    sparse = pytest.importorskip("scipy.sparse")
    frame = pd.DataFrame(X, columns=list("abcde")).assign(label=Y)
    lines = [f"{y} " + " ".join(f"{i + 1}:{v!r}" for i, v in enumerate(x)) for x, y in zip(X.tolist(), Y, strict=True)]
    (tmp_path / "a.libsvm").write_text("\n".join(lines))
    forms = {
        "scipy": lambda rank: (sparse.csr_matrix(X)[rank::size], Y[rank::size]),
        "frame": lambda rank: (frame[rank::size], "label"),
        "libsvm": lambda rank: (shard(tmp_path / "a.libsvm").data[rank * 120 // size : (rank + 1) * 120 // size], None),
        "pair": lambda rank: (Shard((X, Y), rank, size), None),
    }
    for name, form in forms.items():
        models = on_ranks(size, lambda comm, form=form: LogisticRegression().fit(*form(comm.rank), comm=comm))
        np.testing.assert_allclose(models[-1].coef_, best.coef_, atol=1e-5, err_msg=name)
        assert models[-1].n_features_in_ == 5
    assert models[0].score(X, Y) == best.score(X, Y)
    table = shard(tmp_path / "a.libsvm").data
    np.testing.assert_allclose(models[0].predict_proba(table), best.predict_proba(X), atol=1e-5)
    assert best.fit(table).score(table) == best.score(X, Y)


def test_texts_as_labels_and_a_model_that_travels(on_ranks: Any) -> None:
    frame = pd.DataFrame(X, columns=list("abcde")).assign(name=np.where(Y, "yes", "no"))
    for model in on_ranks(2, lambda comm: LogisticRegression().fit(frame[comm.rank :: 2], "name", comm=comm)):
        sent = pickle.loads(pickle.dumps(model))
        assert sent.classes_.tolist() == ["no", "yes"]
        assert sent.score(X, frame["name"]) == LogisticRegression().fit(X, Y).score(X, Y)
        assert set(sent.predict(X)) == {"no", "yes"}


def test_a_rank_without_samples_takes_part(on_ranks: Any) -> None:
    best = LogisticRegression().fit(X, Y)

    def fit(comm: Any) -> Any:
        own = slice(0, 60) if comm.rank == 0 else slice(60, 120) if comm.rank == 2 else slice(0)
        x, y = (X[own], Y[own]) if comm.rank != 1 else ([], [])
        model = LogisticRegression().fit(x, y, comm=comm)
        return model, model.score(x, y, comm=comm)

    for model, score in on_ranks(3, fit):
        np.testing.assert_allclose(model.coef_, best.coef_, atol=1e-5)
        assert score == best.score(X, Y)


def broken(rank: int, x: Any = X, y: Any = Y) -> Any:
    """A fit whose rank 1 has these samples instead."""
    return lambda comm: LogisticRegression().fit(*((x, y) if comm.rank == rank else (X, Y)), comm=comm)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X[:, :4], Y, "same number of features on all ranks; rank 0 has 5, rank 1 has 4"),
        (np.where(X[7, 2] == X, np.nan, X), Y, r"rank 1: X holds NaN or infinite numbers \(row 7, column 2"),
        (X, Y[:-1], r"rank 1: y must have one label for each row of X, \(120,\); its shape is \(119,\)"),
        (X[0], Y, r"rank 1: X must have a row for each sample, \(n, d\); its shape is \(5,\)"),
        ([["a"] * 5], [0], "rank 1: X must be numbers"),
        (X, np.where(Y, np.nan, 0.0), "rank 1: y holds NaN"),
        (X, Y.astype(str), "numbers or texts, the same on all ranks; y holds both"),
        (X, np.where(Y, "a", None), "rank 1: y has missing labels"),
        (X, Y + 2, "two classes apart, such as 0 and 1; y holds 4: 0, 1, 2, 3; SoftmaxRegression"),
    ],
)
def test_a_mistake_on_one_rank_is_told_on_all(on_ranks: Any, x: Any, y: Any, message: str) -> None:
    def fit(comm: Any) -> str:
        with pytest.raises(DataError, match=message):
            broken(1, x, y)(comm)
        return "refused"

    assert on_ranks(2, fit) == ["refused", "refused"]


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(DataError, match=r"y holds 2, which is none of the classes \[0, 1\]"):
        LogisticRegression(classes=[0, 1]).fit(X, Y + 1)
    with pytest.raises(DataError, match="y holds 1: 0;"):
        LogisticRegression().fit(X, Y * 0)
    with pytest.raises(DataError, match="no samples: the shard of every rank is empty"):
        LogisticRegression().fit(X[:0], Y[:0])
    with pytest.raises(DataError, match="fit needs labels"):
        LogisticRegression().fit(X)
    with pytest.raises(DataError, match="no column 'missing'"):
        LogisticRegression().fit(pd.DataFrame(X), "missing")
    with pytest.raises(PlanError, match=r"LogisticRegression\(penalty=...\) is 'l2', 'l1', None; got 'l3'"):
        LogisticRegression(penalty="l3").fit(X, Y)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="C is a positive number"):
        LogisticRegression(C=0).fit(X, Y)
    with pytest.raises(RunError, match="call fit first"):
        LogisticRegression().predict(X)
    with pytest.raises(DataError, match="X has 4 features; the model knows 5"):
        LogisticRegression().fit(X, Y).predict(X[:, :4])
