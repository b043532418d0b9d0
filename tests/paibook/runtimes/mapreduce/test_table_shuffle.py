"""Tables are cut by the same hashes as records, and come back from packing as they were."""

from __future__ import annotations

import mmap
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paibook.runtimes.mapreduce.mistakes import WrongYield
from paibook.runtimes.mapreduce.partition import stable_hash
from paibook.runtimes.mapreduce.table_shuffle import (
    concat_tables,
    key_columns,
    pack_table,
    partition_table,
    split_table,
    unpack_table,
)

values = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.none()),
    st.lists(st.text(max_size=3) | st.none()),
    st.lists(st.floats() | st.none()),
    st.lists(st.booleans()),
)


@given(keys=values, buckets=st.integers(1, 300))
def test_rows_go_where_their_keys_hashes_say(keys: list[Any], buckets: int) -> None:
    table = pa.table({"n": numpy.arange(len(keys)), "k": keys, "s": [str(key) for key in keys]})
    made = partition_table(table, ["k"], buckets)
    assert len(made) == buckets
    for bucket, some in enumerate(made):
        wanted = [n for n, key in enumerate(keys) if stable_hash(key) % buckets == bucket]
        assert ([] if some is None else some.column("n").to_pylist()) == wanted
        if some is not None:
            assert some.schema == table.schema
            assert some.column("s").to_pylist() == [str(keys[n]) for n in wanted]


def test_several_keys_and_many_chunks() -> None:
    part = pa.table({"a": [1, 2, 3], "b": ["x", "y", None], "v": [1.5, None, 2.5]})
    table = pa.concat_tables([part] * 5)
    made = partition_table(table, ["a", "b"], 4)
    for bucket, some in enumerate(made):
        rows = [] if some is None else [(row["a"], row["b"]) for row in some.to_pylist()]
        assert rows == [key for key in [(1, "x"), (2, "y"), (3, None)] * 5 if stable_hash(key) % 4 == bucket]


def test_keys_of_nulls_alone() -> None:
    (found,) = [some for some in partition_table(pa.table({"k": pa.nulls(3)}), ["k"], 7) if some is not None]
    assert found.num_rows == 3


def test_split_by_given_numbers() -> None:
    made = split_table(pa.table({"v": [10, 11, 12]}), [2, 0, 2], 3)
    assert [some and some.column("v").to_pylist() for some in made] == [[11], None, [10, 12]]


@pytest.mark.parametrize("buckets", [2, 1000, 100_000])
def test_any_number_of_buckets(buckets: int) -> None:
    made = partition_table(pa.table({"k": range(50)}), ["k"], buckets)
    assert sum(some.num_rows for some in made if some is not None) == 50


def test_packing_gives_the_table_again_from_a_slice_only() -> None:
    table = pa.table({"k": range(100_000), "s": ["x"] * 100_000})
    content = pack_table(table.slice(10, 5))
    assert unpack_table(content).equals(table.slice(10, 5))
    assert unpack_table(bytes(content)).equals(table.slice(10, 5))
    assert content.size < 2000


def test_a_table_lies_in_the_map_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.shuffle"
    path.write_bytes(bytes(64) + memoryview(pack_table(pa.table({"k": range(1000)}))))
    with path.open("rb") as file:
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    before = pa.total_allocated_bytes()
    table = unpack_table(view[64:])
    assert table.column("k").to_pylist() == list(range(1000))
    assert pa.total_allocated_bytes() - before < 8000


def test_concatenation_takes_the_wider_type() -> None:
    made = concat_tables(
        [
            pa.table({"k": ["a"], "v": [1]}),
            pa.table({"k": pa.array(["b"], pa.large_string()), "v": [1.5]}),
            pa.table({"k": pa.array(["c"]).dictionary_encode(), "v": pa.array([None], pa.string())}),
            pa.table({"k": pa.nulls(0), "other": pa.nulls(0)}),
        ]
    )
    assert made.to_pydict() == {"k": ["a", "b", "c"], "v": [1.0, 1.5, None]}
    assert concat_tables([]).num_rows == 0


@pytest.mark.parametrize(
    ("first", "second", "kinds"),
    [
        (pa.array(["a"]), pa.array([1]), "string in some tables and int64 in others"),
        (pa.array([2**53 + 1]), pa.array([0.5]), "int64 in some tables and double in others.*not in range"),
        (pa.array([2**63], pa.uint64()), pa.array([-1]), "uint64 in some tables and int64 in others.*not in range"),
        (pa.array([True]), pa.array([1]), "bool in some tables and int64 in others"),
        (pa.array([Decimal("0.1")]), pa.array([0.1]), r"decimal128\(1, 1\) in some tables and double in others"),
        (pa.array(["a"]), pa.array([b"a"]), "string in some tables and binary in others"),
    ],
)
def test_concatenation_of_what_no_type_holds_names_the_column(first: Any, second: Any, kinds: str) -> None:
    tables = [pa.table({"n": [1], "k": column}) for column in (first, second)]
    with pytest.raises(WrongYield, match=f"the column 'k' is {kinds}.*give it one type, as with astype or cast"):
        concat_tables(tables)


@pytest.mark.parametrize("wide", [pa.array([0.5, 1]), pa.array([Decimal("0.5"), Decimal(1)], pa.decimal128(30, 2))])
def test_concatenation_keeps_keys_equal_that_python_says_are(wide: pa.Array) -> None:
    found = concat_tables([pa.table({"k": [-(2**53), 1, None]}), pa.table({"k": wide})])
    assert found.column("k").to_pylist() == [-(2**53), 1, None, 0.5, 1]


def test_key_columns() -> None:
    assert key_columns(pa.table({"a": [1], "key": [1]}), [], "map") == ["key"]
    assert key_columns(pa.table({"a": [1], "b": [1]}), [], "map") == ["a"]
    assert key_columns(pa.table({"a": [1], "b": [1]}), ["b", "a"], "map") == ["b", "a"]


@pytest.mark.parametrize(
    ("table", "keys", "message"),
    [
        (pa.table({}), [], "map returned a table without columns"),
        (pa.table({"a": [1], "b": [2]}), ["c"], "no column named 'c'; --key names one of: a, b"),
        (pa.table([[1], [2]], names=["a", "a"]), ["a"], "2 columns named 'a'"),
        (pa.table({"a": [[1]]}), [], "list<.*values in the key column 'a'"),
    ],
)
def test_key_columns_that_cannot_be(table: pa.Table, keys: list[str], message: str) -> None:
    with pytest.raises(WrongYield, match=message):
        key_columns(table, keys, "map")


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (pa.array([Decimal(2**60 + 1)], pa.decimal128(38, 0)), pa.array([2.0**60])),
        (pa.array(["ab"]), pa.array([b"ab"], pa.binary(2))),
        (pa.array([["a"]]), pa.array([[b"a"]])),
        (pa.array([[Decimal("0.1")]]), pa.array([[0.1]])),
    ],
)
def test_values_that_a_common_type_would_change_are_refused(left: pa.Array, right: pa.Array) -> None:
    with pytest.raises(WrongYield, match=r"the column 'v' is .* which make no column together"):
        concat_tables([pa.table({"v": left}), pa.table({"v": right})])


def test_sums_of_whole_numbers_and_of_floats_are_floats() -> None:
    whole = pa.table({"v": pa.array([Decimal(3)], pa.decimal256(76, 0))})
    assert concat_tables([whole, pa.table({"v": [0.5]})]).column("v").to_pylist() == [3.0, 0.5]
