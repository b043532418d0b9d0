"""Deep classifiers of categories."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest

from paibook.errors import DataError, PlanError

pytest.importorskip("torch")

from paibook.algorithms.ps.deep import DeepFM, WideAndDeep, category_keys


def frame(rows: int = 3000) -> pd.DataFrame:
    """Three fields; the label is whether the first two agree, which no field tells by itself."""
    chance = np.random.default_rng(6)
    colors = chance.choice(["red", "green", "blue"], (rows, 2))
    return pd.DataFrame(
        {"a": colors[:, 0], "b": colors[:, 1], "c": chance.integers(0, 50, rows), "y": colors[:, 0] == colors[:, 1]}
    )


@pytest.mark.parametrize("kind", [DeepFM, WideAndDeep])
@pytest.mark.parametrize("consistency", ["bsp", "asp"])
def test_they_learn_what_two_fields_say_together(fitted: Any, kind: Any, consistency: str) -> None:
    data = frame()
    model = fitted(kind(epochs=12, batch_size=64), data, "y", consistency=consistency)
    fresh = frame(3500)[3000:]
    x = fresh.drop(columns="y")
    assert model.score(x, fresh["y"]) > 0.97
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))
    assert model.predict_proba(x.assign(a="purple")).shape == (500, 2)


def test_workers_begin_with_the_same_network(cell: Any) -> None:
    source = """
    def train(ps):
        model = pai.DeepFM(epochs=1, net_optimizer=pai.SGD(0.0)).fit(pai.shard((x, y)), ps=ps)
        return [p.detach().numpy().copy() for p in model._network().parameters()], model.decision_function(x)
    """
    x, y = np.arange(60).reshape(30, 2) % 4, np.arange(30) % 2
    first, second = cell(source, workers=2, x=x, y=y).returned
    for one, other in zip(first[0], second[0], strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(first[1], second[1])


def test_categories_are_keyed_by_field() -> None:
    keys = category_keys(pd.DataFrame({"a": ["x", "y", "x"], "b": pd.Categorical(["x", "x", "y"])}))
    assert keys[0, 0] == keys[2, 0] != keys[1, 0]
    assert len(np.unique(keys)) == 4
    np.testing.assert_array_equal(
        category_keys(np.array([[1, 2]])), category_keys(pd.DataFrame([[1, 2]], dtype="int32"))
    )


def test_what_cannot_be_meant_is_refused(fitted: Any) -> None:
    data = frame(40)
    with pytest.raises(DataError, match="field 2 holds floating values; cut them into bins"):
        fitted(DeepFM(), data.assign(c=0.5), "y")
    with pytest.raises(DataError, match="field 0 has missing categories"):
        fitted(DeepFM(), data.assign(a=data["a"].where(data["a"] == "red")), "y")
    with pytest.raises(PlanError, match="dim and hidden units of 1 or more"):
        fitted(DeepFM(dim=0), data, "y")
    model = fitted(WideAndDeep(epochs=1, crosses=[(0, 1)]), data, "y")
    with pytest.raises(DataError, match="X has 2 fields; the model knows 3"):
        model.predict(data[["a", "b"]])
