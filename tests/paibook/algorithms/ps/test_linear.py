"""Logistic regression on the servers against scikit-learn, and FTRL's exact zeros."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import paibook as pai
from paibook.algorithms import FTRLLogisticRegression, SGDLogisticRegression, train
from paibook.errors import DataError, PlanError, RunError
from paibook.session import Session

X = StandardScaler().fit_transform(load_breast_cancer().data)
Y = load_breast_cancer().target


@pytest.mark.parametrize(
    ("penalty", "options"), [("l2", {}), ("l1", {"solver": "liblinear", "intercept_scaling": 100})]
)
def test_the_objective_is_scikit_learns(fitted: Any, penalty: Any, options: Any) -> None:
    chance = np.random.default_rng(0)
    x = chance.normal([0, 1, 0, -1, 0, 0], size=(400, 6))
    y = x @ [1, -1, 2, 0, 0.3, 0] + chance.normal(size=400) > -1
    theirs = LogisticRegression(C=0.05, l1_ratio=float(penalty == "l1"), tol=1e-8, max_iter=10_000, **options).fit(x, y)
    ours = fitted(SGDLogisticRegression(C=0.05, penalty=penalty, epochs=200, batch_size=50), x, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=0.02)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=0.02)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=0.02)
    assert ours.score(x, y) == pytest.approx(theirs.score(x, y), abs=0.01)
    assert np.abs(ours.coef_).sum() < 0.9 * np.abs(LogisticRegression(C=1e6).fit(x, y).coef_).sum()


@pytest.mark.parametrize("options", [{"consistency": "asp"}, {"consistency": "ssp", "staleness": 2}, {"workers": 1}])
def test_every_consistency_learns(fitted: Any, options: Any) -> None:
    model = fitted(SGDLogisticRegression(optimizer=pai.SGD(0.5), batch_size=32, epochs=10), X, Y, **options)
    assert model.score(X, Y) > 0.97


def test_bsp_is_the_same_to_the_last_bit_every_time(fitted: Any) -> None:
    first, second = (fitted(FTRLLogisticRegression(epochs=2), X, Y).coef_ for _ in range(2))
    np.testing.assert_array_equal(first, second)


def planted(rows: int = 2000, width: int = 400, informative: int = 10) -> tuple[Any, np.ndarray]:
    chance = np.random.default_rng(1)
    x = sparse.random(rows, width, density=0.05, format="csr", random_state=chance, data_rvs=np.ones)
    return x, (np.asarray(x[:, :informative].sum(axis=1)).ravel() > 0.5).astype(int)


def test_ftrl_makes_what_is_irrelevant_exactly_zero(fitted: Any) -> None:
    x, y = planted()
    model = fitted(FTRLLogisticRegression(alpha=0.5, l1=20.0, epochs=3, batch_size=32), x, y)
    assert (model.coef_[0, :10] > 0.5).all()
    assert np.mean(model.coef_[0, 10:] == 0) > 0.95
    assert model.score(x, y) > 0.97
    assert np.mean(fitted(FTRLLogisticRegression(l1=0.0, epochs=1), x, y).coef_ == 0) < 0.01


def test_any_keys_on_a_sparse_table_are_the_same_model(fitted: Any) -> None:
    x, y = planted(400, 50)
    names = np.random.default_rng(2).integers(-(2**63), 2**63 - 1, 50)
    wide = (names[x.indices], x.data, x.indptr)
    dense, hashed = (fitted(FTRLLogisticRegression(epochs=2), rows, y, workers=1) for rows in (x, wide))
    order = np.argsort(names)
    assert hashed.keys_.tolist() == names[order].tolist()
    np.testing.assert_allclose(hashed.coef_, dense.coef_[:, order], atol=1e-6)
    np.testing.assert_allclose(hashed.decision_function(wide), dense.decision_function(x), atol=1e-5)
    unseen = (np.array([7]), np.ones(1), np.array([0, 1]))
    assert hashed.decision_function(unseen) == hashed.intercept_


def test_two_workers_bring_all_keys_home(fitted: Any) -> None:
    x, y = planted(400, 50)
    model = fitted(FTRLLogisticRegression(), (x.indices, x.data, x.indptr), y)
    assert model.keys_.tolist() == np.unique(x.indices).tolist()


def test_a_fitted_model_travels(fitted: Any) -> None:
    model = fitted(SGDLogisticRegression(), X, Y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


def test_labels_are_what_they_are_called(fitted: Any) -> None:
    names = np.array(["malignant", "benign"])[Y]
    model = fitted(SGDLogisticRegression(), X, names)
    assert model.classes_.tolist() == ["benign", "malignant"]
    assert np.mean(model.predict(X) == names) > 0.97


def test_in_a_cell_of_ones_own(cell: Any) -> None:
    source = """
    def train(ps):
        x, y = pai.shard((features, labels)).data
        model = pai.SGDLogisticRegression(epochs=3, classes=(0, 1)).fit(x, y, ps=ps)
        other = pai.FTRLLogisticRegression(name="other.").fit(pai.shard((features, labels)), ps=ps)
        return model, other
    """
    run = cell(source, workers=2, features=X, labels=Y)
    for models in zip(*run.returned, strict=True):
        for model in models:
            assert model.score(X, Y) > 0.96
            np.testing.assert_array_equal(model.load(run.tables).coef_, models[0].coef_)
    assert set(run.tables) == {"weights", "intercept", "other.weights", "other.intercept"}
    with pytest.raises(RunError, match=r"no table 'third.weights'; it has"):
        SGDLogisticRegression(name="third.").load(run.tables)


def test_the_loss_is_logged_and_until_ends_it(session: Session) -> None:
    model = SGDLogisticRegression(batch_size=32, epochs=1000)
    found = train(model, X, Y, workers=2, until="loss < 0.1", session=session)
    losses = [metric for metric in session.runs[-1].metrics if metric.name == "loss"]
    assert losses[0].value == pytest.approx(np.log(2))
    assert {metric.rank for metric in losses} == {0, 1}
    assert max(metric.step or 0 for metric in losses) < 500
    assert not hasattr(model, "weights_")
    assert found.score(X, Y) > 0.9


def test_what_cannot_be_meant_is_refused(fitted: Any) -> None:
    with pytest.raises(PlanError, match=r"call fit\(X, y, ps=ps\) in train\(ps\).*or pai.algorithms.train"):
        SGDLogisticRegression().fit(X, Y)
    with pytest.raises(RunError, match="has not learned anything yet"):
        FTRLLogisticRegression().predict(X)
    with pytest.raises(PlanError, match="C is a positive number; got 0"):
        fitted(SGDLogisticRegression(C=0), X, Y)
    with pytest.raises(
        PlanError, match=r"alpha above 0, and beta, l1 and l2 of 0 or more; got alpha=0.1, beta=1.0, l1=-1"
    ):
        fitted(FTRLLogisticRegression(l1=-1), X, Y)
    with pytest.raises(PlanError, match=r"epochs=...\) is a whole number, 1 or more; got 0"):
        fitted(FTRLLogisticRegression(epochs=0), X, Y)
    with pytest.raises(DataError, match=r"two classes apart; these samples hold 3: 0, 1, 2.*give classes=\(0, 1\)"):
        fitted(SGDLogisticRegression(), X, np.arange(len(X)) % 3)
    with pytest.raises(DataError, match="y holds 1, which is none of the classes"):
        fitted(SGDLogisticRegression(classes=(0, 2)), X, Y)
    with pytest.raises(DataError, match="NaN or infinite"):
        fitted(SGDLogisticRegression(), np.where(X > 3, np.nan, X), Y)


def test_train_knows_which_estimators_have_servers(session: Session) -> None:
    with pytest.raises(PlanError, match=r"no 'server' here: there are servers, consistency, staleness, until"):
        train(SGDLogisticRegression(), X, Y, server=2, session=session)
    with pytest.raises(PlanError, match=r"no 'servers' here: LogisticRegression learns by all-reduce"):
        train(pai.LogisticRegression(), X, Y, servers=2, session=session)


def test_workers_that_saw_other_classes_are_named(session: Session) -> None:
    frame = pd.DataFrame({"a": range(8), "y": [0, 1, 0, 1, 1, 2, 1, 2]})
    with pytest.raises(DataError, match=r"worker 0 has the classes \[0, 1\], worker 1 \[1, 2\]; give classes="):
        train(AsItLies(), frame, "y", workers=2, session=session)


class AsItLies:
    """An estimator that takes a shard unshuffled."""

    runtime = "ps"

    def fit(self, shard: Any, y: Any, ps: Any) -> Any:
        return SGDLogisticRegression().fit(shard.data, y, ps=ps)


def test_a_worker_without_rows_takes_part(fitted: Any, cell: Any, tmp_path: Path) -> None:
    pd.DataFrame(X[:, :5]).add_prefix("x").assign(y=Y).to_csv(tmp_path / "few.csv", index=False)
    model = fitted(SGDLogisticRegression(batch_size=32), tmp_path / "few.csv", "y", workers=3)
    assert model.score(X[:, :5], Y) > 0.85
    source = """
    def train(ps):
        rows = features[:0] if ps.rank else features
        return pai.SGDLogisticRegression(epochs=1).fit(rows, labels[:len(rows)], ps=ps)
    """
    other = cell(source, workers=2, features=X, labels=Y).returned[1]
    with pytest.raises(RunError, match="had no samples, so it knows no classes"):
        other.predict(X)


class Later:
    """Of a parameter server, what says which clocks there are: from a later one on."""

    rank = 1

    def __init__(self, first: int) -> None:
        self.first = first

    def clocks(self, n: int) -> Iterator[int]:
        return iter(range(self.first, n))


def test_which_samples_a_step_takes_depends_on_the_clock_alone() -> None:
    model = SGDLogisticRegression(epochs=3, batch_size=4)
    steps = list(model._steps(Later(0), 10))  # type: ignore[arg-type]
    assert [len(step) for step in steps] == [4, 4, 2] * 3
    epochs = [np.concatenate(steps[start : start + 3]) for start in (0, 3, 6)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 3
    assert not np.array_equal(epochs[0], epochs[1])
    for one, other in zip(model._steps(Later(5), 10), steps[5:], strict=True):  # type: ignore[arg-type]
        np.testing.assert_array_equal(one, other)
    assert list(model._steps(Later(0), 0)) == []  # type: ignore[arg-type]
