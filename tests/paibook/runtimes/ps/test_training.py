"""Training on real data, with servers and workers as threads: right answers under every consistency model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler

CELL = """
    import numpy as np
    from scipy.special import expit

    x, y = features[rank::world_size], labels[rank::world_size]

    def train(ps):
        w = ps.table("w", shape=x.shape[1], dtype="float64", optimizer=pai.SGD(lr=hp.lr / total))
        for epoch in ps.clocks(30):
            weights = w.pull()
            p = expit(x @ weights)
            w.push(x.T @ (p - y))
            pai.log(step=epoch, loss=-np.mean(np.log(np.where(y == 1, p, 1 - p))))
        return x.shape[0]
"""


@pytest.fixture(scope="module")
def cancer() -> tuple[np.ndarray, np.ndarray]:
    data = load_breast_cancer()
    return StandardScaler().fit_transform(data.data), data.target


def descend(x: np.ndarray, y: np.ndarray, steps: int) -> np.ndarray:
    weights = np.zeros(x.shape[1])
    for _ in range(steps):
        weights -= 0.5 / len(x) * (x.T @ (expit(x @ weights) - y))
    return weights


def loss(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    p = expit(x @ weights)
    return float(-np.mean(np.log(np.where(y == 1, p, 1 - p))))


def first_clock(x: np.ndarray, y: np.ndarray, bound: float, workers: int) -> int:
    """Clocks after which the mean of the workers' losses, each at the start of its clock, is below the bound."""
    weights, clock, means = np.zeros(x.shape[1]), 0, np.inf
    while means >= bound:
        means = np.mean([loss(x[rank::workers], y[rank::workers], weights) for rank in range(workers)])
        weights -= 0.5 / len(x) * (x.T @ (expit(x @ weights) - y))
        clock += 1
    return clock


@pytest.mark.parametrize(("workers", "servers"), [(1, 1), (3, 2), (2, 5)])
def test_bsp_equals_full_batch_gradient_descent(bench: Any, cancer: Any, workers: int, servers: int) -> None:
    x, y = cancer
    context = bench.context(features=x, labels=y, total=len(x))
    result = bench.run(CELL, context, workers=workers, servers=servers)
    assert np.abs(result.tables["w"] - descend(x, y, 30)).max() < 1e-6
    assert result.clock == 30
    assert sum(result.returned) == len(x)
    assert result.reason == "train() returned on every worker"
    assert "table 'w': shape (30,), float64" in repr(result)


def test_bsp_is_the_same_to_the_last_bit_every_time(bench: Any, cancer: Any) -> None:
    x, y = cancer
    runs = [bench.run(CELL, bench.context(features=x, labels=y, total=len(x))).tables["w"] for _ in range(3)]
    assert all(np.array_equal(runs[0], other) for other in runs[1:])


@pytest.mark.parametrize(("kind", "staleness"), [("asp", 0), ("ssp", 0), ("ssp", 3)])
def test_asp_and_ssp_converge(bench: Any, cancer: Any, kind: str, staleness: int) -> None:
    x, y = cancer
    context = bench.context(features=x, labels=y, total=len(x))
    result = bench.run(CELL, context, consistency=kind, staleness=staleness)
    assert loss(x, y, result.tables["w"]) < 1.2 * loss(x, y, descend(x, y, 30))


def test_until_stops_every_worker_at_the_first_clock_at_which_it_holds(bench: Any, cancer: Any) -> None:
    x, y = cancer
    cell = CELL.replace("clocks(30)", "clocks()").replace("return x.shape[0]", "return epoch")
    context = bench.context(features=x, labels=y, total=len(x))
    result = bench.run(cell, context, until="loss < 0.2 or epoch >= 500")
    expected = first_clock(x, y, 0.2, workers=3)
    assert 1 < expected < 500
    assert result.clock == expected
    assert result.returned == (expected - 1,) * 3
    assert result.reason.startswith("--until loss < 0.2 or epoch >= 500 (loss = 0.1")
    assert np.abs(result.tables["w"] - descend(x, y, expected)).max() < 1e-6


def test_until_on_the_clock_is_exact(bench: Any, cancer: Any) -> None:
    x, y = cancer
    context = bench.context(features=x, labels=y, total=len(x))
    result = bench.run(CELL, context, until="epoch >= 7")
    assert result.clock == 7
    assert np.abs(result.tables["w"] - descend(x, y, 7)).max() < 1e-6


def test_sparse_and_dense_tables_give_the_same_model(bench: Any, cancer: Any) -> None:
    x, y = cancer
    cell = (
        CELL.replace("shape=x.shape[1], ", "sparse=True, ")
        .replace("w.pull()", "w.pull(keys)[:, 0]")
        .replace("w.push(", "w.push(keys, ")
    )
    cell = cell.replace("def train(ps):", "keys = np.arange(x.shape[1])[::-1] * 10**12\n\n    def train(ps):")
    result = bench.run(cell, bench.context(features=x, labels=y, total=len(x)))
    keys, rows = result.tables["w"]
    assert np.array_equal(keys, np.arange(30) * 10**12)
    assert np.abs(rows[::-1, 0] - descend(x, y, 30)).max() < 1e-6


COUNT = """
    import time, random

    def update(weight, grad):
        return weight + grad

    def train(ps):
        counts = ps.table("counts", shape=world_size, dtype="int64")
        own = [int(i == rank) for i in range(world_size)]
        seen = []
        draw = random.Random(rank)
        for clock in ps.clocks(15):
            time.sleep(draw.random() * 0.01 * rank)
            seen.append((clock, counts.pull().tolist(), counts.staleness))
            counts.push(own)
        return seen
"""


@pytest.mark.parametrize(("kind", "bound"), [("bsp", 0), ("ssp", 0), ("ssp", 2), ("asp", None)])
def test_what_a_pull_may_miss(bench: Any, kind: str, bound: int | None) -> None:
    result = bench.run(COUNT, consistency=kind, staleness=bound or 0)
    assert result.tables["counts"].tolist() == [15] * 3
    for rank, pulls in enumerate(result.returned):
        for clock, counts, staleness in pulls:
            assert counts[rank] == clock  # a worker always sees its own pushes of earlier clocks
            if kind == "bsp":
                assert counts == [clock] * 3
            if bound is not None:
                assert min(counts) >= clock - bound
                assert staleness <= bound


def test_normal_initial_weights_and_user_objects_come_back(bench: Any) -> None:
    cell = """
    def train(ps):
        w = ps.table("w", shape=(7, 2), optimizer=pai.SGD(), init=pai.Normal(scale=1.0))
        rows = w.pull([6, 0, 6])
        return rows, w.pull()
    """
    result = bench.run(cell, servers=3)
    rows, whole = result.returned[0]
    assert np.array_equal(rows, whole[[6, 0, 6]])
    assert np.array_equal(result.tables["w"], whole)
    assert len(np.unique(whole)) == 14
