"""Random programs of functions that take records, Arrow tables or pandas frames, in any mixture, against a dict."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paibook.resources import Resources
from paibook.runtimes.mapreduce.driver import Driver

SMALL = 500  # bytes of memory

HEAD = """
import os, signal, sys
import pandas as pd, pyarrow as pa
import paibook.runtimes.mapreduce.limits as limits
limits.LEAST = least

def at(function):
    if function not in deaths:
        return
    try:
        open(os.path.join(folder, function), "x").close()
    except FileExistsError:
        return
    if "paibook_test_death" in sys.modules:
        sys.modules["paibook_test_death"].die()
    os.kill(os.getpid(), signal.SIGKILL)

def summed(rows):
    made = rows.groupby("key", as_index=False, dropna=False)[["n"]].sum()
    return made
"""
MAPS = {
    "records": """
def map(record):
    at("map")
    if record["n"] % 3:
        yield record["key"], record["n"]
""",
    "arrow": """
def map(rows: pa.Table) -> pa.Table:
    at("map")
    return rows.filter(pa.array([n % 3 != 0 for n in rows["n"].to_pylist()], pa.bool_()))
""",
    "pandas": """
def map(rows: pd.DataFrame):
    at("map")
    for start in range(0, len(rows), 7):
        yield rows[start:start + 7].query("n % 3 != 0")
""",
}
COMBINES = {
    "none": "",
    "records": "def combine(key, values):\n    at('combine')\n    yield key, sum(values)\n",
    "pandas": "def combine(rows: pd.DataFrame):\n    at('combine')\n    return summed(rows)\n",
}
REDUCES = {
    "records": "def reduce(key, values):\n    at('reduce')\n    yield {'key': key, 'n': sum(values)}\n",
    "declared": "reduce = pai.Sum()\n",
    "arrow": """
def reduce(rows: pa.Table) -> pa.Table:
    at("reduce")
    name = rows.column_names[1]
    return rows.group_by("key").aggregate([(name, "sum")]).rename_columns(["key", "n"])
""",
    "pandas": """
def reduce(rows: pd.DataFrame) -> pd.DataFrame:
    at("reduce")
    return summed(rows.rename(columns={"value": "n"}))
""",
}
rows = st.one_of(
    st.lists(st.tuples(keys, st.integers(-50, 50)), max_size=80)
    for keys in (st.integers(-9, 9), st.text("abä", max_size=2), st.just("hot") | st.text("ab", max_size=1))
)


def check(run: Any, folder: Path, forms: tuple[str, str, str], items: list[Any], deaths: list[str], **options: Any):
    expected: Counter[Any] = Counter()
    for key, n in items:
        if n % 3:
            expected[key] += n
    present = {key for key, n in items if n % 3}
    map_, combine, reduce_ = forms
    frame = pandas.DataFrame({"key": [key for key, _ in items], "n": [n for _, n in items]})
    variables = {"items": frame, "deaths": deaths, "folder": str(folder), "least": SMALL}
    source = HEAD + MAPS[map_] + COMBINES[combine] + REDUCES[reduce_]
    plan = run.plan(source, {"variable": "items"}, push=("deaths", "folder", "least"), **options)
    plan = replace(plan, resources=Resources(memory=1))
    Driver().check(plan)
    found = Driver().run(plan, run.cluster, run.context(variables))
    if "out" in options:
        found = found.read().to_dict("records")
    found = [tuple(row.values()) if isinstance(row, dict) else row for row in found]
    assert sorted(found) == sorted((key, expected[key]) for key in present)
    assert run.summary["stages"][0]["records_in"] == len(items)


forms = st.tuples(
    st.sampled_from(sorted(MAPS)), st.sampled_from(sorted(COMBINES)), st.sampled_from(sorted(REDUCES))
).filter(lambda found: found[1] == "none" or (found[0] == "records") == (found[1] == "records"))  # else refused
deaths = st.lists(st.sampled_from(["map", "combine", "reduce"]), unique=True)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(forms=forms, items=rows, dying=deaths, reducers=st.none() | st.integers(1, 4), slots=st.integers(1, 3))
def test_any_mixture_gives_what_a_dict_gives(
    run: Any,
    mortal: Any,
    tmp_path_factory: pytest.TempPathFactory,
    forms: tuple[str, str, str],
    items: list[Any],
    dying: list[str],
    reducers: int | None,
    slots: int,
) -> None:
    with mortal(slots) as cluster:
        run.cluster = cluster
        check(run, tmp_path_factory.mktemp("case"), forms, items, dying, reducers=reducers)


@pytest.mark.slow
@pytest.mark.timeout(300)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(forms=forms, items=rows, dying=deaths)
def test_any_mixture_gives_so_on_processes_that_die(
    on_cluster: Any,
    tmp_path_factory: pytest.TempPathFactory,
    forms: tuple[str, str, str],
    items: list[Any],
    dying: list[str],
) -> None:
    folder = tmp_path_factory.mktemp("case")
    check(on_cluster, folder, forms, items, dying, out=str(folder / "out.parquet"))
    assert not list(folder.glob(".out*"))
