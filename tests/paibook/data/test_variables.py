"""Notebook variables as input."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path
from typing import Any

import numpy
import pandas
import pyarrow
import pytest

from paibook.data.variables import variable_splits
from paibook.errors import DataError


def read(value: Any, splits: int | None = None) -> list[Any]:
    found = variable_splits("docs", value, 2, splits)
    return [record for split in found for batch in split.batches() for record in batch.records]


@pytest.mark.parametrize("splits", [None, 1, 3, 100])
def test_items_come_once_and_in_order(splits: int | None) -> None:
    assert read(list(range(10)), splits) == list(range(10))
    assert read((str(i) for i in range(10)), splits) == [str(i) for i in range(10)]
    assert read([], splits) == []


def test_a_few_items_become_a_task_each() -> None:
    assert len(variable_splits("docs", [1, 2, 3], 2)) == 3


def test_rows_of_frames_and_tables_are_dicts() -> None:
    rows = [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    assert read(pandas.DataFrame(rows)) == rows
    assert read(pyarrow.Table.from_pylist(rows)) == rows


@pytest.mark.parametrize("kind", ["arrow", "polars", "pandas"])
def test_rows_travel_without_the_rest_of_their_table(kind: str) -> None:
    table = pyarrow.table({"n": range(10_000), "text": ["x" * 20] * 10_000})
    value = table if kind == "arrow" else table.to_pandas()
    if kind == "polars":
        value = pytest.importorskip("polars").from_arrow(table)
    found = variable_splits("docs", value, 1, 16)
    assert sum(len(split.content) for split in found) < 2 * table.nbytes


def test_a_place_names_variable_and_item() -> None:
    split = variable_splits("docs", list("abcdefgh"), 1, 2)[1]
    assert next(iter(split.batches())).place(2) == "docs, item 6"


@pytest.mark.parametrize("value", ["text", b"bytes", 3, None])
def test_what_cannot_be_iterated_is_refused(value: Any) -> None:
    with pytest.raises(DataError, match="'docs'"):
        read(value)


def test_a_dict_is_refused_with_advice() -> None:
    with pytest.raises(DataError, match=r"pass list\(docs.items\(\)\)"):
        read({"a": 1})


def test_items_that_cannot_be_pickled_are_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"'docs' has items .* cannot be sent to workers"):
        read([threading.Lock()])


def tables(value: Any, columns: list[str] | None = None) -> list[pyarrow.Table]:
    return [table for split in variable_splits("docs", value, 1, 2) for table in split.tables(columns)]


def rows(value: Any, columns: list[str] | None = None) -> list[dict[str, Any]]:
    return [row for table in tables(value, columns) for row in table.to_pylist()]


def test_rows_of_arrays_are_items() -> None:
    assert read(numpy.arange(4)) == [0, 1, 2, 3]
    assert type(read(numpy.arange(4))[0]) is int
    assert [row.tolist() for row in read(numpy.eye(2))] == [[1.0, 0.0], [0.0, 1.0]]
    assert read(numpy.array(["2024-01-01"], "datetime64[ns]")) == [numpy.datetime64("2024-01-01")]
    with pytest.raises(DataError, match="'docs' cannot be iterated"):
        read(numpy.array(3))


def test_arrow_in_its_other_forms_and_series() -> None:
    table = pyarrow.table({"a": [1, 2]})
    assert read(table.to_batches()[0]) == read(table.to_reader()) == [{"a": 1}, {"a": 2}]
    assert read(pandas.Series([1, 2])) == [1, 2]


def test_polars_frames() -> None:
    polars = pytest.importorskip("polars")
    assert read(polars.DataFrame({"a": [1, 2]})) == [{"a": 1}, {"a": 2}]
    with pytest.raises(DataError, match=r"pass docs.collect\(\) instead"):
        read(polars.LazyFrame({"a": [1]}))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (pyarrow.table({"a": [1, 2, 3]}), [{"a": 1}, {"a": 2}, {"a": 3}]),
        (pandas.DataFrame({"a": [1, 2, 3]}, index=[5, 6, 7]), [{"a": 1}, {"a": 2}, {"a": 3}]),
        ([{"a": 1}, {"a": 2}], [{"a": 1}, {"a": 2}]),
        ([("x", 1), ("y", 2)], [{"key": "x", "value": 1}, {"key": "y", "value": 2}]),
        (["x", "y"], [{"value": "x"}, {"value": "y"}]),
        (numpy.array([1.5, 2.5]), [{"value": 1.5}, {"value": 2.5}]),
        (numpy.array([[1, 2], [3, 4]]), [{"0": 1, "1": 2}, {"0": 3, "1": 4}]),
        (numpy.zeros((2, 1, 2)), [{"value": [[0.0, 0.0]]}] * 2),
    ],
)
def test_items_become_tables(value: Any, expected: list[Any]) -> None:
    assert rows(value) == expected


def test_tables_have_the_columns_asked_for() -> None:
    assert rows([{"a": 1, "b": 2}], ["b"]) == [{"b": 2}]
    with pytest.raises(DataError, match="docs has no column 'c'; it has: a, b"):
        rows([{"a": 1, "b": 2}], ["c"])


def test_a_column_of_mixed_types_is_named() -> None:
    with pytest.raises(DataError, match=r"'docs'.*column 'a'"):
        list(variable_splits("docs", [{"a": 1}, {"a": "x"}], 1, 1)[0].tables())
    with pytest.raises(DataError, match="'docs' does not fit into a table"):
        list(variable_splits("docs", pandas.DataFrame({"a": [1, "x"]}, dtype=object), 1, 1)[0].tables())


def test_saved_splits_hold_a_path_and_read_the_same(tmp_path: Path) -> None:
    splits = variable_splits("docs", ["x" * 100_000, "b", "c"], 1, 3)
    saved = [split.saved(tmp_path) for split in [*splits, splits[0]]]
    assert len({split.path for split in saved}) == 4
    again = [pickle.loads(pickle.dumps(split)) for split in saved]
    assert len(pickle.dumps(saved)) < 2000
    assert [r for split in again[:3] for batch in split.batches() for r in batch.records] == ["x" * 100_000, "b", "c"]
    assert next(iter(again[2].batches())).place(0) == "docs, item 2"
    assert next(iter(again[1].tables())).to_pylist() == [{"value": "b"}]
    saved[0].path.unlink()
    with pytest.raises(DataError, match="cannot read the input variable 'docs' back"):
        list(saved[0].batches())
    with pytest.raises(DataError, match="cannot keep the input variable 'docs' in"):
        splits[0].saved(tmp_path / "nowhere")
