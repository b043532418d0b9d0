"""Hot keys: combined while map runs, so that no reduce task carries one; and named in the summary."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy
import pandas
import pytest

from paibook.resources import Resources
from paibook.runtimes.mapreduce import collector, limits, reduction
from paibook.runtimes.mapreduce.driver import Driver

COUNT = 20_000
# Six of ten values belong to one key, the rest to keys of their own.
MAP = "def map(n):\n    yield ('hot' if n % 10 < 6 else f'k{n}'), n\n"
TABLES = "import pyarrow as pa\ndef map(rows: pa.Table) -> pa.Table:\n    return rows\n"
REDUCERS = {
    "declared": "reduce = pai.Sum()\n",
    "combined": """
def combine(key, values):
    yield key, sum(values)
def reduce(key, values):
    yield key, sum(values)
""",
}


def stage(run: Any, name: str) -> dict[str, Any]:
    (found,) = [stage for stage in run.summary["stages"] if stage["name"] == name]
    return found


@pytest.mark.parametrize("reducer", sorted(REDUCERS))
def test_a_hot_key_is_combined_while_map_runs(run: Any, monkeypatch: pytest.MonkeyPatch, reducer: str) -> None:
    monkeypatch.setattr(collector, "PENDING", 500)
    found = dict(run.over(MAP + REDUCERS[reducer], range(COUNT)))
    assert found["hot"] == sum(n for n in range(COUNT) if n % 10 < 6)
    assert len(found) == COUNT * 4 // 10 + 1
    # A few partial values from each part of each map task, where there were 12,000 values.
    (hot,) = [key for key in run.summary["largest_keys"] if key["key"] == "'hot'"]
    assert hot["values"] <= 2 * COUNT // 500
    assert stage(run, "reduce")["records_in"] <= COUNT * 4 // 10 + hot["values"]


@pytest.mark.parametrize("reducer", sorted(REDUCERS))
def test_a_hot_key_is_combined_though_others_are_not(run: Any, reducer: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(collector, "HOT", 100)
    found = dict(run.over(MAP.replace("< 6", "< 1") + REDUCERS[reducer], range(COUNT)))
    assert found["hot"] == sum(range(0, COUNT, 10))
    # One of ten values is its own: each of the tasks met hundreds.
    assert stage(run, "reduce")["records_in"] <= COUNT * 9 // 10 + 4 * stage(run, "map")["tasks"]


@pytest.mark.parametrize("reducer", ["Sum()", "Mean()", "Count()"])
def test_a_hot_key_of_tables_is_combined_though_others_are_not(run: Any, reducer: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(reduction, "ENOUGH", 50)
    n = numpy.arange(COUNT)
    rows = pandas.DataFrame({"key": numpy.where(n % 10 < 6, -1, n), "value": n})
    found = {row["key"]: row["value"] for row in run.over(TABLES + f"reduce = pai.{reducer}\n", rows)}
    expected = rows.groupby("key")["value"].agg(reducer[:-2].lower()).to_dict()
    assert found == expected
    hot = run.summary["largest_keys"][0]
    assert hot["key"] == "-1"
    assert hot["values"] <= stage(run, "map")["tasks"]
    assert stage(run, "reduce")["records_in"] <= COUNT * 4 // 10 + hot["values"]


@pytest.mark.parametrize("memory", [None, 1])
def test_the_ten_largest_keys_are_named_by_their_values(
    run: Any, monkeypatch: pytest.MonkeyPatch, memory: int | None
) -> None:
    monkeypatch.setattr(limits, "LEAST", 2_000)
    source = (
        "def map(n):\n    for i in range(n):\n        yield n, f'{i:0100}'\ndef reduce(key, values):\n    yield key\n"
    )
    plan = replace(run.plan(source, {"variable": "items"}), resources=Resources(memory=memory))
    Driver().run(plan, run.cluster, run.context({"items": range(50)}))
    assert bool(sum(stage["spilled_bytes"] for stage in run.summary["stages"])) == (memory is not None)
    assert [(key["key"], key["values"]) for key in run.summary["largest_keys"]] == [
        (str(n), n) for n in range(49, 39, -1)
    ]
    assert all(50 * key["values"] < key["bytes"] < 500 * key["values"] for key in run.summary["largest_keys"])


def test_the_largest_keys_of_tables_are_named(run: Any) -> None:
    rows = pandas.DataFrame({"key": [n for n in range(30) for _ in range(n)]}).assign(value=1)
    source = TABLES + "def reduce(rows: pa.Table) -> pa.Table:\n    return rows.slice(0, 1)\n"
    run.over(source, rows)
    assert [(key["key"], key["values"]) for key in run.summary["largest_keys"]] == [
        (str(n), n) for n in range(29, 19, -1)
    ]
