"""k-means against scikit-learn's Lloyd steps from the same centers."""

import numpy as np
import pytest

from paibook.algorithms import k_means, k_means_step
from paibook.errors import DataError, PlanError

POINTS = np.concatenate([np.random.default_rng(i).normal(5 * i, 1, (40, 2)) for i in range(3)])
CENTERS = POINTS[[0, 1, 2]]


def test_one_step_is_scikit_learns(session):
    cluster = pytest.importorskip("sklearn.cluster")
    reference = cluster.KMeans(3, init=CENTERS, n_init=1, max_iter=1, tol=0).fit(POINTS)
    centers, sizes, inertia = k_means_step(POINTS.tolist(), CENTERS, session=session)
    distances = ((POINTS[:, None] - CENTERS) ** 2).sum(axis=2)
    np.testing.assert_allclose(inertia, distances.min(axis=1).sum())
    assert list(sizes) == list(np.bincount(distances.argmin(axis=1), minlength=3))
    np.testing.assert_allclose(centers, reference.cluster_centers_)


def test_k_means_ends_where_scikit_learn_does(session):
    cluster = pytest.importorskip("sklearn.cluster")
    reference = cluster.KMeans(3, init=CENTERS, n_init=1, tol=0).fit(POINTS)
    table = [{"x": x, "y": y} for x, y in POINTS]
    found = k_means(table, columns=["x", "y"], centers=CENTERS, session=session)
    assert found.converged
    assert found.sizes.sum() == len(POINTS)
    np.testing.assert_allclose(found.centers, reference.cluster_centers_)
    assert found.inertia == pytest.approx(reference.inertia_)


def test_a_center_without_points_stays(session):
    centers, sizes, _ = k_means_step([[0.0], [1.0]], [[0.0], [99.0]], session=session)
    assert centers.tolist() == [[0.5], [99.0]]
    assert sizes.tolist() == [2, 0]


def test_first_centers_are_drawn_from_the_points(simulated):
    found = k_means(POINTS.tolist(), 3, steps=1, session=simulated)
    drawn = np.array(simulated.plans[1].hyperparameters["centers"])
    assert all((center == POINTS).all(axis=1).any() for center in drawn)
    assert found.steps == 1
    assert not found.converged


def test_what_cannot_be_clustered_is_refused(simulated):
    with pytest.raises(PlanError, match="either k or centers"):
        k_means([[1.0]], session=simulated)
    with pytest.raises(DataError, match="2 points, too few for 3"):
        k_means([[1.0], [2.0]], 3, session=simulated)
    with pytest.raises(PlanError, match="finite numbers"):
        k_means_step([[1.0]], [1.0], session=simulated)
    with pytest.raises(PlanError, match="2 coordinates, but 1 columns"):
        k_means_step([[1.0]], [[1.0, 2.0]], columns=["x"], session=simulated)
