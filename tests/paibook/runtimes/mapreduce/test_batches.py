"""Functions that take tables get them in their library's words, and give back tables or a clear error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from paibook.errors import ProgramError
from paibook.runtimes.mapreduce.batches import call
from paibook.runtimes.mapreduce.mistakes import WrongYield

ROWS = pa.table({"k": [1, 2, 2], "s": ["a", None, "c"]}, metadata={"note": "of a file"})


def polars() -> Any:
    return pytest.importorskip("polars", reason="Polars is not installed")


def test_arrow_in_and_out() -> None:
    made = call(lambda rows: rows.slice(1), "arrow", ROWS, "map")
    assert made.to_pydict() == {"k": [2, 2], "s": [None, "c"]}
    assert made.schema.metadata is None


def test_an_arrow_table_is_not_copied() -> None:
    made = call(lambda rows: rows, "arrow", ROWS, "map")
    assert made.column("k").chunk(0).buffers()[1].address == ROWS.column("k").chunk(0).buffers()[1].address


def test_pandas_in_and_out_drops_an_index_without_a_name() -> None:
    made = call(lambda rows: rows[rows.k == 2], "pandas", ROWS, "map")
    assert made.column_names == ["k", "s"]
    assert made.to_pydict() == {"k": [2, 2], "s": [None, "c"]}
    assert made.schema.metadata is None


def test_a_named_index_of_pandas_is_kept() -> None:
    made = call(lambda rows: rows.groupby("k").agg(n=("s", "size")), "pandas", ROWS, "reduce")
    assert made.to_pydict() == {"k": [1, 2], "n": [1, 2]}


def test_a_frame_may_be_written_into() -> None:
    def map_(rows: pd.DataFrame) -> pd.DataFrame:
        rows.loc[0, "k"] = 7
        rows["k"] += 1
        return rows

    assert call(map_, "pandas", ROWS.select(["k"]), "map").to_pydict() == {"k": [8, 3, 3]}
    assert ROWS.column("k").to_pylist() == [1, 2, 2]


def test_an_index_that_pandas_wrote_is_a_column() -> None:
    stored = pa.Table.from_pandas(pd.DataFrame({"n": [1, 2]}, index=pd.Index([5, 6], name="k")))
    made = call(lambda rows: rows.assign(n=rows["n"] + rows["k"]), "pandas", stored, "map")
    assert made.to_pydict() == {"n": [6, 8], "k": [5, 6]}


def test_polars_in_and_out() -> None:
    pl = polars()
    made = call(lambda rows: rows.group_by("k", maintain_order=True).agg(pl.len().alias("n")), "polars", ROWS, "map")
    assert made.to_pydict() == {"k": [1, 2], "n": [1, 2]}
    lazy = call(lambda rows: rows.lazy().filter(pl.col("k") == 1), "polars", ROWS, "map")
    assert lazy.to_pydict() == {"k": [1], "s": ["a"]}
    # Arrow's group-by knows these.
    assert lazy.schema.field("s").type in (pa.string(), pa.large_string())


def test_a_series_of_polars_is_no_table() -> None:
    polars()
    with pytest.raises(WrongYield, match="map yielded 1"):
        call(lambda rows: rows["k"], "polars", ROWS, "map")


def test_without_polars_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ProgramError, match=r"pip install 'paibook\[polars\]'"):
        call(lambda rows: rows, "polars", ROWS, "map")


def test_a_generator_of_tables_of_several_libraries() -> None:
    def map_(rows: pa.Table) -> Iterator[Any]:
        yield rows.slice(0, 1)
        yield rows.slice(1, 1).to_pandas()
        yield rows.slice(2).to_batches()[0]

    assert call(map_, "arrow", ROWS, "map").to_pydict() == {"k": [1, 2, 2], "s": ["a", None, "c"]}


def test_a_generator_of_nothing() -> None:
    made = call(lambda rows: iter([]), "arrow", ROWS, "map")
    assert (made.num_rows, made.num_columns) == (0, 0)


def test_several_tables() -> None:
    def reduce(users: pd.DataFrame, orders: pd.DataFrame) -> pd.DataFrame:
        return users.merge(orders, on="k")

    orders = pa.table({"k": [2, 1], "n": [5, 6]})
    assert call(reduce, "pandas", ROWS.slice(0, 1), "reduce", orders).to_pydict() == {"k": [1], "s": ["a"], "n": [6]}


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (None, "map returned None where an Arrow table.*did you forget to return"),
        ({"k": [1]}, r"map returned \{'k': \[1\]\} \(dict\).*pa.table"),
        ("text", r"map returned 'text' \(str\)"),
        (7, r"map returned 7 \(int\)"),
        ([ROWS, 7], r"map yielded 7 \(int\)"),
        ([None], "map yielded None"),
        (pd.Series([1]), "map yielded 1"),
        (pd.DataFrame({"a": [1, "x"]}), "cannot travel as a table.*give each column one type"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "cannot travel as a table.*a name of its own"),
        (
            [pa.table({"a": [1]}), pa.table({"a": ["x"]})],
            r"do not fit together.*\(a int64\) and \(a string\)",
        ),
    ],
    ids=str,
)
def test_anything_else_is_refused_in_words(made: Any, message: str) -> None:
    with pytest.raises(WrongYield, match=message):
        call(lambda rows: made, "arrow", ROWS, "map")


def test_what_the_function_raises_comes_untouched() -> None:
    error = KeyError("price")

    def map_(rows: pa.Table) -> Iterator[pa.Table]:
        yield rows
        raise error

    with pytest.raises(KeyError) as caught:
        call(map_, "arrow", ROWS, "map")
    assert caught.value is error
