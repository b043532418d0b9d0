"""A column's values are hashed as the Python values in it."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paibook.runtimes.mapreduce.arrow_partition import column_hashes, table_hashes
from paibook.runtimes.mapreduce.hashing import stable_hash

utc = datetime.UTC
COLUMNS: list[tuple[Any, list[Any]]] = [
    (pyarrow.int8(), [1, -1, None, 127]),
    (pyarrow.int64(), [0, -1, 2**63 - 1, -(2**63), 2**61 - 1, None]),
    (pyarrow.uint64(), [0, 2**64 - 1, 2**61 - 1]),
    (pyarrow.float64(), [0.0, -0.0, 1.0, 1.5, 1e300, 5e-324, float("inf"), float("-inf"), float("nan"), None]),
    (pyarrow.float32(), [1.5, -3.0, None]),
    (pyarrow.bool_(), [True, False, None]),
    (pyarrow.string(), ["a", "", "é\0", None]),
    (pyarrow.string(), ["a", "b", None, "a"] * 50),
    (pyarrow.large_string(), ["a", "", None]),
    (pyarrow.string_view(), ["a", "a longer text than fits", None]),
    (pyarrow.binary(), [b"a", b"\xff", None]),
    (pyarrow.date32(), [datetime.date(2020, 1, 1), datetime.date(1, 1, 1), None]),
    (pyarrow.date64(), [datetime.date(2020, 1, 1), datetime.date(1950, 3, 1), None]),
    (pyarrow.timestamp("us"), [datetime.datetime(2020, 1, 1, 2, 3, 4, 5), datetime.datetime(1950, 1, 1), None]),
    (pyarrow.timestamp("s"), [datetime.datetime(2020, 1, 1, 2, 3, 4), None]),
    (pyarrow.timestamp("ns"), [datetime.datetime(1960, 1, 1, 2, 3, 4, 5), None]),
    (pyarrow.timestamp("ms", "Asia/Tokyo"), [datetime.datetime(2020, 1, 1, tzinfo=utc), None]),
    (pyarrow.duration("ms"), [datetime.timedelta(days=-2, milliseconds=7), None]),
    (pyarrow.time64("us"), [datetime.time(1, 2, 3, 4), None]),
    (pyarrow.decimal128(9, 2), [Decimal("1.50"), Decimal("2"), None]),
    (pyarrow.dictionary(pyarrow.int8(), pyarrow.string()), ["a", None, "b", "a"]),
    (pyarrow.null(), [None, None]),
    (pyarrow.string(), []),
]


@pytest.mark.parametrize(("kind", "values"), COLUMNS, ids=[str(kind) for kind, _ in COLUMNS])
def test_columns_agree_with_python(kind: Any, values: list[Any]) -> None:
    array = pyarrow.array(values, kind)
    assert column_hashes(array).tolist() == [stable_hash(value) for value in values]
    chunked = pyarrow.chunked_array([array[:1], array[1:], array[:0]], kind)
    assert column_hashes(chunked).tolist() == [stable_hash(value) for value in values]


@settings(deadline=None)
@given(st.lists(st.floats() | st.none()), st.lists(st.integers(-(2**63), 2**63 - 1) | st.none()), st.lists(st.text()))
def test_any_values_agree(floats: list[Any], integers: list[Any], texts: list[str]) -> None:
    for values, kind in ((floats, pyarrow.float64()), (integers, pyarrow.int64()), (texts, pyarrow.string())):
        assert column_hashes(pyarrow.array(values, kind)).tolist() == [stable_hash(value) for value in values]


def test_several_columns_are_a_tuple() -> None:
    table = pyarrow.table({"a": ["x", None, "z"], "b": [1, 2, None], "c": [0.5, 1.0, None]})
    rows = [tuple(row[name] for name in ("c", "a")) for row in table.to_pylist()]
    assert table_hashes(table, ["c", "a"]).tolist() == [stable_hash(row) for row in rows]
    assert table_hashes(table, ["b"]).tolist() == [stable_hash(value) for value in (1, 2, None)]


def test_a_column_without_chunks_has_no_hashes() -> None:
    assert column_hashes(pyarrow.chunked_array([], pyarrow.string())).tolist() == []


def test_whole_and_other_numbers_meet() -> None:
    whole = column_hashes(pyarrow.array([1, 2, 1 << 40]))
    assert whole.tolist() == column_hashes(pyarrow.array([1.0, 2.0, 2.0**40])).tolist()


def test_lists_are_no_keys() -> None:
    with pytest.raises(TypeError, match=r"a column of list<item: int64> cannot be a key"):
        column_hashes(pyarrow.array([[1]]))
