"""Matrix factorisation against a known one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from paibook.algorithms import MatrixFactorization
from paibook.errors import DataError

USERS, ITEMS, RANK, NOISE = 60, 40, 3, 0.1


def ratings(count: int) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(4)
    p, q = chance.normal(size=(USERS, RANK)), chance.normal(size=(ITEMS, RANK))
    bias, worth = chance.normal(size=USERS), chance.normal(size=ITEMS)
    pairs = np.stack([chance.integers(0, USERS, count), chance.integers(0, ITEMS, count)], axis=1)
    user, item = pairs.T
    exact = 3.5 + bias[user] + worth[item] + (p[user] * q[item]).sum(axis=1)
    return pairs, exact + NOISE * chance.normal(size=count)


@pytest.mark.parametrize("consistency", ["bsp", "asp"])
def test_it_recovers_a_matrix_of_low_rank(fitted: Any, consistency: str) -> None:
    pairs, y = ratings(5000)
    pairs = pairs * 10**12 - 7  # any int64 is a key
    model = fitted(
        MatrixFactorization(factors=RANK, epochs=40, batch_size=64, l2=0.01),
        pairs[:4000],
        y[:4000],
        consistency=consistency,
    )
    unseen = model.predict(pairs[4000:]) - y[4000:]
    assert np.sqrt(np.mean(unseen**2)) < 2 * NOISE
    assert model.score(pairs[4000:], y[4000:]) > 0.98


def test_of_somebody_new_it_knows_the_mean_and_the_items_bias(fitted: Any) -> None:
    pairs, y = ratings(4000)
    model = fitted(MatrixFactorization(factors=RANK, epochs=20), pairs, y)
    new = np.stack([np.full(ITEMS, 10**9), np.arange(ITEMS)], axis=1)
    means = np.array([y[pairs[:, 1] == item].mean() for item in range(ITEMS)])
    assert np.corrcoef(model.predict(new), means)[0, 1] > 0.8


def test_pairs_that_are_none(fitted: Any) -> None:
    with pytest.raises(DataError, match=r"a user and an item in each row, whole numbers \(n, 2\); got float64"):
        fitted(MatrixFactorization(), np.ones((4, 2)), np.ones(4))
    with pytest.raises(DataError, match="one label for each row"):
        fitted(MatrixFactorization(), np.ones((4, 2), int), np.ones((4, 1)))


def test_files_of_ratings(fitted: Any, tmp_path: Path) -> None:
    pairs, y = ratings(500)
    pd.DataFrame({"user": pairs[:, 0], "item": pairs[:, 1], "stars": y}).to_csv(tmp_path / "ratings.csv", index=False)
    model = fitted(MatrixFactorization(factors=RANK, epochs=20, batch_size=32), tmp_path / "ratings.csv", "stars")
    assert model.score(pairs, y) > 0.7
