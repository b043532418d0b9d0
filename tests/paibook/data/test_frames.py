"""Records as columns."""

from __future__ import annotations

from collections import Counter, namedtuple
from dataclasses import dataclass
from typing import Any

import pyarrow
import pytest

from paibook.data.frames import columns, common_schema, concatenated, frame, table
from paibook.errors import DataError

Point = namedtuple("Point", "x y")


@dataclass
class Pixel:
    x: int
    colour: str


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([{"a": 1, "b": 2}, {"b": 4, "a": 3}], {"a": [1, 3], "b": [2, 4]}),
        ([{"a": 1}, {"b": 2}], {"a": [1, None], "b": [None, 2]}),
        ([("x", 1), ("y", 2)], {"key": ["x", "y"], "value": [1, 2]}),
        ([(1, 2, 3)], {"0": [1], "1": [2], "2": [3]}),
        ([Point(1, 2)], {"x": [1], "y": [2]}),
        ([Pixel(1, "red")], {"x": [1], "colour": ["red"]}),
        ([1, 2], {"value": [1, 2]}),
        ([1, "a"], {"value": [1, "a"]}),
        ([(1, 2), (1,)], {"value": [(1, 2), (1,)]}),
        ([], {}),
    ],
)
def test_records_become_columns(records: list[Any], expected: dict[str, list[Any]]) -> None:
    assert columns(records) == expected
    assert list(frame(records).columns) == list(expected)


def test_a_column_of_mixed_types_is_named() -> None:
    with pytest.raises(DataError, match=r"partition 2: the column 'a' has no common type \(it holds int, str\)"):
        table([{"a": 1}, {"a": "x"}], "partition 2")


def test_tables_of_different_columns_are_widened() -> None:
    joined = concatenated([table([{"a": 1}]), table([{"a": 2.5, "b": "x"}]), table([{"a": None}])])
    assert joined.to_pylist() == [{"a": 1.0, "b": None}, {"a": 2.5, "b": "x"}, {"a": None, "b": None}]


def test_schemas_without_a_common_one_are_refused() -> None:
    one, other = pyarrow.schema({"a": pyarrow.int64()}), pyarrow.schema({"a": pyarrow.string()})
    with pytest.raises(DataError, match="do not fit into one table"):
        common_schema([one, other])


def test_dicts_with_as_many_keys_but_others() -> None:
    records = [{"a": 1, "b": 2}, {"a": 3, "c": 4}, {"c": 5, "a": 6}]
    assert columns(records) == {"a": [1, 3, 6], "b": [2, None, None], "c": [None, 4, 5]}


def test_dicts_that_make_missing_values_miss_them() -> None:
    counted = Counter("ab")  # answers 0 for what it lacks
    assert columns([counted, Counter("ac")]) == {"a": [1, 1], "b": [1, None], "c": [None, 1]}
