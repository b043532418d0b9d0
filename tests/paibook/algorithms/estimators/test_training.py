"""Estimators trained from the notebook, on the inline cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from paibook.algorithms import KMeans, LinearRegression, LogisticRegression, train
from paibook.errors import DataError
from paibook.history import RunHistory
from paibook.session import Session

X = np.random.default_rng(5).normal(size=(60, 3))
Y = X @ [1.0, 2.0, -1.0] + 0.5


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    made = Session("inline", RunHistory(tmp_path / "runs"))
    yield made
    made.close()


def test_rows_of_the_notebook(session: Session) -> None:
    estimator = LinearRegression()
    model = train(estimator, X, Y, workers=3, session=session)
    np.testing.assert_allclose(model.coef_, [1, 2, -1])
    assert not hasattr(estimator, "coef_")
    assert train(KMeans(2), X, workers=2, session=session).cluster_centers_.shape == (2, 3)


def test_the_loss_is_logged_once_for_all_ranks(session: Session) -> None:
    model = train(LogisticRegression(), X, Y > 0, workers=2, session=session)
    metrics = list(session.runs[-1].metrics)
    assert [metric.step for metric in metrics] == list(range(1, model.n_iter_ + 1))
    assert {(metric.name, metric.rank) for metric in metrics} == {("loss", 0)}
    assert metrics[-1].value < metrics[0].value < np.log(2)


def test_files_are_read_by_the_ranks(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pd.DataFrame(X, columns=list("abc")).assign(y=Y).to_csv(tmp_path / "a.csv", index=False)
    lines = [f"{int(y > 0)} 1:{a} 2:{b} 3:{c}\n" for (a, b, c), y in zip(X, Y, strict=True)]
    (tmp_path / "a.data").write_text("".join(lines))
    monkeypatch.chdir(tmp_path)
    np.testing.assert_allclose(train(LinearRegression(), "a.csv", "y", workers=2, session=session).coef_, [1, 2, -1])
    found = train(LogisticRegression(), Path("a.data"), format="libsvm", workers=2, session=session)
    np.testing.assert_allclose(found.coef_, LogisticRegression().fit(X, Y > 0).coef_, atol=1e-5)


def test_what_fit_refuses_is_raised_here(session: Session) -> None:
    broken = X.copy()
    broken[50] = np.nan
    with pytest.raises(DataError, match=r"rank 1: X holds NaN or infinite numbers \(row 20, column 0, and 2 more\)"):
        train(LinearRegression(), broken, Y, workers=2, session=session)
