"""Principal components against scikit-learn, on one rank and on several."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paibook.algorithms.estimators import PCA
from paibook.data.shards import Shard
from paibook.errors import DataError, PlanError

GENERATOR = np.random.default_rng(2)
X = GENERATOR.normal(size=(70, 3)) @ GENERATOR.normal(size=(3, 6)) + GENERATOR.normal(size=(70, 6)) / 5 + 20


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("kept", [None, 2])
def test_components_are_scikit_learns(on_ranks: Any, size: int, kept: int | None) -> None:
    reference = pytest.importorskip("sklearn.decomposition").PCA(kept).fit(X)
    for model in on_ranks(size, lambda comm: PCA(kept).fit(Shard(X, comm.rank, size), comm=comm)):
        for name in ("components_", "explained_variance_", "explained_variance_ratio_", "singular_values_", "mean_"):
            np.testing.assert_allclose(getattr(model, name), getattr(reference, name), rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(model.transform(X), reference.transform(X), atol=1e-8)
        np.testing.assert_allclose(PCA(kept).fit_transform(X), reference.transform(X), atol=1e-8)
        np.testing.assert_allclose(
            model.inverse_transform(model.transform(X)), reference.inverse_transform(reference.transform(X))
        )


def test_sparse_rows_and_a_rank_without_samples(on_ranks: Any) -> None:
    sparse = pytest.importorskip("scipy.sparse").csr_matrix(X)
    best = PCA(2).fit(X)
    for model in on_ranks(2, lambda comm: PCA(2).fit(sparse if comm.rank else [], comm=comm)):
        np.testing.assert_allclose(model.components_, best.components_)


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(PlanError, match=r"n_components is from 1 to 6 \(70 rows, 6 features\); got 7"):
        PCA(7).fit(X)
    with pytest.raises(DataError, match="two rows or more"):
        PCA().fit(X[:1])
