"""Cells that take whole tables, and what they are mixed with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pyarrow.parquet
import pytest

from paibook.clusters.inline import InlineCluster
from paibook.errors import ProgramError, UserCodeError

ROWS = pandas.DataFrame({"key": [i % 5 for i in range(100)], "value": list(range(100))})
SUMS = ROWS.groupby("key")["value"].sum().to_dict()
MAP = """
import pandas as pd
import pyarrow as pa
def map(rows: pa.Table) -> pa.Table:
    return rows
"""


def over(run: Any, source: str, **options: Any) -> Any:
    return run.over(MAP + source, ROWS, **options)


@pytest.mark.parametrize("slots", [1, 3])
def test_a_declarative_reducer_takes_tables(run: Any, slots: int) -> None:
    run.cluster = InlineCluster(slots)
    found = over(run, "reduce = pai.Sum()\n")
    assert {row["key"]: row["value"] for row in found} == SUMS
    assert len(found) == 5
    assert run.summary["stages"][0]["records_in"] == 100


@pytest.mark.parametrize("options", [{}, {"reducers": 3}, {"as": "dataframe"}])
def test_sums_of_whole_numbers_are_whole_however_large(run: Any, options: dict[str, Any]) -> None:
    rows = pandas.DataFrame({"key": [1, 2, 1, 3], "value": [2**62, 3, 2**62, 2**62]})
    found = run.over(MAP + "reduce = pai.Sum()\n", rows, **options)
    records = found.to_dict("records") if "as" in options else found
    assert sorted((row["key"], row["value"]) for row in records) == [(1, 2**63), (2, 3), (3, 2**62)]
    assert {type(row["value"]) for row in records} == {int}


def test_a_second_stage_of_records_takes_large_sums(run: Any) -> None:
    rows = pandas.DataFrame({"key": [1, 2, 1], "value": [2**62, 3, 2**62]})
    source = "reduce = pai.Sum()\ndef map2(record):\n    yield type(record['value']).__name__, 1\n"
    assert run.over(MAP + source + "reduce2 = pai.Count()\n", rows) == [("int", 2)]


@pytest.mark.parametrize("column", ["pa.array(ns, pa.duration('s'))", "pa.array([Decimal(n) / 4 for n in ns])"])
def test_means_of_tables_are_those_of_pairs(run: Any, column: str) -> None:
    head = "from decimal import Decimal\n" + MAP
    ns = "ns = [n % 7 for n in rows['value'].to_pylist()]\n    "
    tables = head.replace("return rows", f"{ns}return rows.set_column(1, 'value', {column})")
    pairs = tables.replace("def map", "def made") + (
        "def map(record):\n"
        "    rows = made(pa.Table.from_pylist([record]))\n"
        "    yield record['key'], rows['value'][0].as_py()\n"
    )
    of_tables = run.over(tables + "reduce = pai.Mean()\n", ROWS)
    assert sorted((row["key"], row["value"]) for row in of_tables) == run.over(pairs + "reduce = pai.Mean()\n", ROWS)


def test_a_reducer_of_frames_gets_all_rows_of_its_keys(run: Any, tmp_path: Path) -> None:
    source = """
def reduce(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.groupby("key", as_index=False)["value"].sum()
"""
    result = over(run, source, out=str(tmp_path / "sums.parquet"))
    assert result.read().set_index("key")["value"].to_dict() == SUMS
    assert result.rows == 5


def test_a_combiner_of_frames(run: Any) -> None:
    source = """
def combine(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.groupby("key", as_index=False)["value"].sum()
def reduce(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.groupby("key", as_index=False)["value"].sum()
"""
    found = over(run, source)
    assert {row["key"]: row["value"] for row in found} == SUMS
    assert run.summary["stages"][0]["records_out"] < 100


@pytest.mark.parametrize(
    ("map_", "combine", "message"),
    [
        ("record", "rows: pd.DataFrame", "'combine' takes tables, but 'map' gives pairs"),
        ("rows: pd.DataFrame", "key, values", "'combine' takes values of a key, but 'map' gives tables"),
    ],
)
def test_a_combiner_that_would_never_be_called_is_refused(run: Any, map_: str, combine: str, message: str) -> None:
    source = f"import pandas as pd\ndef map({map_}):\n    yield 1\ndef combine({combine}):\n    yield 1\n"
    with pytest.raises(ProgramError, match=message):
        run.over(source + "reduce = pai.Sum()\n", ROWS)


def test_rows_of_tables_meet_a_reducer_of_keys(run: Any) -> None:
    source = "def reduce(key, values):\n    yield key, sum(values)\n"
    assert over(run, source) == sorted(SUMS.items())


def test_pairs_meet_a_reducer_of_tables(run: Any) -> None:
    source = """
import pandas as pd
def map(record):
    yield record % 5, record
def reduce(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.groupby("key", as_index=False)["value"].sum()
"""
    assert {row["key"]: row["value"] for row in run.over(source, range(100))} == SUMS


def test_another_key_column(run: Any) -> None:
    source = MAP.replace("return rows", "return rows.rename_columns(['user', 'key'])") + "reduce = pai.Count()\n"
    found = run.over(source, ROWS, key=["user"])
    assert {row["user"]: row["key"] for row in found} == dict.fromkeys(range(5), 20)
    with pytest.raises(UserCodeError, match="no column named 'nothing'"):
        run.over(source, ROWS, key=["nothing"])


def test_a_reducer_gets_a_table_of_each_input(run: Any) -> None:
    source = """
import pandas as pd
def map(rows: pd.DataFrame) -> pd.DataFrame:
    return rows
def reduce(users: pd.DataFrame, orders) -> pd.DataFrame:
    return users.merge(orders, on="key")
"""
    users = pandas.DataFrame({"key": [1, 2, 3], "name": ["Ada", "Bob", "Cid"]})
    orders = pandas.DataFrame({"key": [1, 1, 3, 9], "price": [5, 6, 7, 8]})
    inputs = [{"variable": "users", "name": "users"}, {"variable": "orders", "name": "orders"}]
    found = run(source, *inputs, variables={"users": users, "orders": orders})
    assert sorted((row["name"], row["price"]) for row in found) == [("Ada", 5), ("Ada", 6), ("Cid", 7)]


def test_map_only_writes_tables(run: Any, tmp_path: Path) -> None:
    source = MAP.replace("return rows", "return rows.filter(pa.compute.greater(rows['value'], 90))")
    source = source.replace("import pyarrow as pa", "import pyarrow as pa, pyarrow.compute")
    result = run.over(source + "reduce = None\n", ROWS, out=str(tmp_path / "few.parquet"))
    assert sorted(result.read()["value"]) == list(range(91, 100))


def test_a_second_stage_of_tables(run: Any) -> None:
    source = "reduce = pai.Sum()\nreduce2 = pai.Count()\n"
    source = source.replace(
        "reduce2", "def map2(rows: pa.Table) -> pa.Table:\n    return rows.select(['key'])\nreduce2"
    )
    with pytest.raises(UserCodeError, match="reduces the columns beside the key's"):
        over(run, source)
    source = source.replace("rows.select(['key'])", "rows.set_column(0, 'key', pa.array(['all'] * len(rows)))")
    assert over(run, source) == [{"key": "all", "value": 5}]


KEYS = """
import pyarrow as pa
def map(rows: pa.Table) -> pa.Table:
    keys = [float(n) + 0.5 * (n == 8) if n > 7 else n + large for n in rows["value"].to_pylist()]
    return pa.table({"key": keys, "n": [1] * len(keys)})
"""


@pytest.mark.parametrize("reduce", ["pai.Sum()", "lambda key, values: [{'key': key, 'n': sum(values)}]"])
def test_keys_that_are_whole_here_and_fractions_there_meet(run: Any, reduce: str) -> None:
    rows = pandas.DataFrame({"value": [1, 2, 9, 3, 8, 9, 10, 10]})
    variables = {"large": 7}
    found = run.over(KEYS + f"reduce = {reduce}\n", rows, variables=variables, push=("large",), reducers=1)
    assert {row["key"]: row["n"] for row in found} == {8: 1, 8.5: 1, 9: 3, 10: 3}


def test_keys_that_no_column_holds_together_are_named(run: Any) -> None:
    run.cluster = InlineCluster(2)
    rows = pandas.DataFrame({"value": [1, 2, 3, 4, 8, 9, 9, 8]})
    variables = {"large": 2**53}
    options = {"variables": variables, "push": ("large",), "reducers": 1}
    message = "reduce task 0: .*the column 'key' is int64 in some tables and double in others.*; give it one type"
    with pytest.raises(UserCodeError, match=message):
        run.over(KEYS + "reduce = pai.Sum()\n", rows, **options)
    by_key = "def reduce(key, values):\n    yield key, sum(values)\n"
    assert dict(run.over(KEYS + by_key, rows, **options)) == {2**53 + n: 1 for n in (1, 2, 3, 4)} | {8.5: 2, 9: 2}


def test_what_is_no_table_is_named(run: Any) -> None:
    with pytest.raises(UserCodeError, match="map returned"):
        run.over(MAP.replace("return rows", "return 7") + "reduce = pai.Sum()\n", ROWS)


def test_parquet_files_are_read_as_tables(run: Any, tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pandas(ROWS), tmp_path / "in.parquet", row_group_size=10)
    found = run(MAP + "reduce = pai.Sum()\n", tmp_path / "in.parquet")
    assert {row["key"]: row["value"] for row in found} == SUMS
