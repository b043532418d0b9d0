"""k-means against scikit-learn from the same centers, on one rank and on several."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from paibook.algorithms.estimators import KMeans
from paibook.data.shards import Shard
from paibook.errors import DataError, PlanError

GENERATOR = np.random.default_rng(3)
CENTERS = GENERATOR.uniform(-10, 10, size=(5, 3))
X = np.concatenate([GENERATOR.normal(center, 0.8, size=(40, 3)) for center in CENTERS]) + 1000
GENERATOR.shuffle(X)


def fitted(on_ranks: Any, size: int, rows: Any = X, **options: Any) -> list[Any]:
    return on_ranks(size, lambda comm: KMeans(5, **options).fit(Shard(rows, comm.rank, size), comm=comm))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_lloyds_steps_are_scikit_learns(on_ranks: Any, size: int) -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    reference = cluster.KMeans(5, init=X[:5], n_init=1, algorithm="lloyd", tol=0).fit(X)
    models = fitted(on_ranks, size, init=X[:5], tol=0)
    for model in models:
        np.testing.assert_allclose(model.cluster_centers_, reference.cluster_centers_)
        assert model.inertia_ == pytest.approx(reference.inertia_)
        np.testing.assert_allclose(model.transform(X), reference.transform(X), atol=1e-5)
        assert model.predict(X).tolist() == reference.predict(X).tolist()
        assert model.score(X) == pytest.approx(reference.score(X))
    assert np.concatenate([model.labels_ for model in models]).tolist() == reference.labels_.tolist()


def test_plus_plus_finds_the_clusters_on_any_number_of_ranks(on_ranks: Any) -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    reference = cluster.KMeans(5, n_init=10, random_state=0).fit(X)
    found = [fitted(on_ranks, size)[0] for size in (1, 2, 3)]
    for model in found:
        assert model.inertia_ == pytest.approx(reference.inertia_, rel=1e-4)
        np.testing.assert_allclose(model.cluster_centers_, found[0].cluster_centers_)


def test_first_centers_lie_far_apart(on_ranks: Any) -> None:
    few = np.repeat([[0.0], [1.0], [50.0], [99.0], [100.0]], [96, 1, 1, 1, 1], axis=0)
    for size in (1, 3):
        model = fitted(on_ranks, size, few, max_iter=1)[0]
        assert sorted(model.cluster_centers_.ravel().tolist()) == [0, 1, 50, 99, 100]


def test_sparse_rows_and_a_rank_without_samples(on_ranks: Any) -> None:
    sparse = pytest.importorskip("scipy.sparse").csr_matrix(X - 1000)
    best = KMeans(5).fit(X - 1000)
    for model in on_ranks(2, lambda comm: KMeans(5).fit(sparse if comm.rank else [], comm=comm)):
        np.testing.assert_allclose(model.cluster_centers_, best.cluster_centers_)


def test_a_models_bytes_are_equal_on_all_ranks(on_ranks: Any) -> None:
    first, second = (pickle.dumps(model) for model in fitted(on_ranks, 2))
    assert first == second
    assert pickle.loads(first).predict(X[:3]).shape == (3,)


def test_a_center_without_points_stays() -> None:
    model = KMeans(2, init=[[0.0], [99.0]]).fit([[0.0], [1.0]])
    assert model.cluster_centers_.tolist() == [[0.5], [99.0]]
    assert KMeans(2, init=[[0.0], [99.0]]).fit_predict([[0.0], [98.0]]).tolist() == [0, 1]
    assert KMeans(3).fit(np.full((4, 2), 5.0)).cluster_centers_.tolist() == [[5.0, 5.0]] * 3


def test_what_cannot_be_clustered_is_refused() -> None:
    with pytest.raises(DataError, match="4 rows, too few for 5 clusters"):
        KMeans(5).fit(X[:4])
    with pytest.raises(PlanError, match=r"finite numbers of shape \(5, 3\); got shape \(2, 3\)"):
        KMeans(5, init=X[:2]).fit(X)
    with pytest.raises(PlanError, match=r"KMeans\(init=...\) is 'k-means\+\+'; got 'random'"):
        KMeans(5, init="random").fit(X)
