"""Tables become pairs and pairs become tables, with equal keys and values."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paibook.runtimes.mapreduce.mistakes import WrongYield
from paibook.runtimes.mapreduce.pairs import columns_of, dicts_of, lists_of, pairs_of, table_of

ROWS = pa.table({"a": [1, 2], "b": ["x", None], "c": [1.5, 2.5]})
scalars = [st.integers(), st.text(), st.floats(allow_nan=False), st.booleans(), st.none()]


@pytest.mark.parametrize(
    ("table", "keys", "pairs"),
    [
        (ROWS.select(["a", "c"]), ["a"], [(1, 1.5), (2, 2.5)]),
        (ROWS, ["a"], [(1, ("x", 1.5)), (2, (None, 2.5))]),
        (ROWS, ["c", "a"], [((1.5, 1), "x"), ((2.5, 2), None)]),
        (ROWS.select(["b"]), ["b"], [("x", None), (None, None)]),
        (pa.table({"k": [1], "v": pa.array([Decimal(2**70)], pa.decimal256(76, 0))}), ["k"], [(1, 2**70)]),
        (pa.table({"k": [1], "v": pa.array([Decimal(2**70)], pa.decimal128(38, 0))}), ["k"], [(1, Decimal(2**70))]),
        (pa.table({"k": [1], "v": pa.array([Decimal(2)], pa.decimal128(5, 0))}), ["k"], [(1, Decimal(2))]),
    ],
)
def test_rows_as_pairs(table: pa.Table, keys: list[str], pairs: list[Any]) -> None:
    found = list(pairs_of(table, keys))
    assert found == pairs
    assert [type(value) for _, value in found] == [type(value) for _, value in pairs]


def test_rows_as_dicts_have_whole_numbers_for_large_sums() -> None:
    sums = pa.array([Decimal(2**70), None], pa.decimal256(76, 0))
    rows = pa.table({"k": ["a", "b"], "v": sums, "w": [Decimal("1.5"), Decimal(2)]})
    assert list(map(repr, dicts_of(rows))) == [
        f"{{'k': 'a', 'v': {2**70}, 'w': Decimal('1.5')}}",
        "{'k': 'b', 'v': None, 'w': Decimal('2.0')}",
    ]


def test_plain_keys_and_values() -> None:
    assert table_of(["a", "b"], [1, None]).to_pydict() == {"key": ["a", "b"], "value": [1, None]}
    assert table_of(["a"], [1], ["word"]).to_pydict() == {"word": ["a"], "value": [1]}
    assert table_of([], []).column_names == ["key", "value"]


def test_tuples_and_dicts_become_columns() -> None:
    made = table_of([(1, "x"), (2, "y")], [{"n": 1}, {"m": 2.5, "n": 3}])
    assert made.to_pydict() == {"key0": [1, 2], "key1": ["x", "y"], "n": [1, 3], "m": [None, 2.5]}
    assert table_of([(1, 2)], [3], ["a", "b"]).column_names == ["a", "b", "value"]


@pytest.mark.parametrize(
    ("keys", "values", "names", "message"),
    [
        ([1, "a"], [1, 2], (), r"column 'key' \(of types int, str\)"),
        ([1, 2], ["x", 2], (), r"column 'value' \(of types int, str\)"),
        ([(1, 2), (1,)], [1, 2], (), r"keys of different lengths \(\[1, 2\]\)"),
        ([(1, 2)], [1], ["a"], r"--key names 1 columns \(a\); keys of 2 parts"),
        ([1], [{"key": 2}], (), "an entry 'key', which is the name of a key column"),
        ([1], [object()], (), r"of types object"),
    ],
)
def test_what_makes_no_columns(keys: list[Any], values: list[Any], names: Any, message: str) -> None:
    with pytest.raises(WrongYield, match=message):
        table_of(keys, values, names)


pair_lists = st.tuples(
    st.sampled_from([*scalars, st.tuples(st.integers(), st.text()), st.one_of(scalars)]), st.sampled_from(scalars)
).flatmap(lambda kinds: st.lists(st.tuples(*kinds), min_size=1, max_size=10))


@given(pairs=pair_lists)
def test_columns_lose_nothing_or_are_refused(pairs: list[Any]) -> None:
    keys, values = (list(column) for column in zip(*pairs, strict=True))
    made = columns_of(keys, values)
    if made is not None:
        found = lists_of(made, made.column_names[:-1])
        assert [list(map(repr, column)) for column in found] == [list(map(repr, keys)), list(map(repr, values))]


@pytest.mark.parametrize(
    ("keys", "values", "is_fast"),
    [
        ([1, 2], [1.5, 2.5], True),
        (["a", "b"], [1, 2], True),
        ([(1, "a"), (2, "b")], [True, False], True),
        ([1, True], [1, 2], False),
        ([1.0], [1], False),
        ([2**63], [1], False),
        ([1], [2**63], False),
        (["\ud800"], [1], False),
        ([1], [None], False),
        ([(1,)], [1], False),
        ([(1, 2), (1, 2, 3)], [1, 1], False),
        ([], [], False),
    ],
)
def test_which_pairs_are_columns(keys: list[Any], values: list[Any], is_fast: bool) -> None:
    assert (columns_of(keys, values) is not None) == is_fast
