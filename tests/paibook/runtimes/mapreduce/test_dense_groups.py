"""Groups by a table of results give what Arrow's group-by gives, or nothing."""

from __future__ import annotations

import math
from typing import Any
from unittest import mock

import numpy
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paibook.runtimes.mapreduce import dense_groups
from paibook.runtimes.mapreduce.aggregates import grouped
from paibook.runtimes.mapreduce.dense_groups import densely_grouped, is_dense

KINDS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
FUNCTIONS = ["sum", "count", "count_all", "min", "max"]


@st.composite
def key_columns(draw: st.DrawFn) -> Any:
    kind = draw(st.sampled_from(KINDS))
    limits = numpy.iinfo(kind.to_pandas_dtype())
    low = draw(st.sampled_from([int(limits.min), int(limits.max) - 20, 0]))
    keys = draw(st.lists(st.integers(0, 20), min_size=1, max_size=40))
    return pa.array([low + key for key in keys], kind)


def rows_of(keys: Any, values: Any) -> dict[Any, Any]:
    return dict(
        zip(
            pa.chunked_array([keys]).to_pylist() if isinstance(keys, pa.Array) else keys.to_pylist(),
            values,
            strict=True,
        )
    )


@given(keys=key_columns(), data=st.data(), function=st.sampled_from(FUNCTIONS))
def test_whole_numbers_are_grouped_as_by_arrow(keys: Any, data: st.DataObject, function: str) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    limits = numpy.iinfo(kind.to_pandas_dtype())
    some = st.integers(int(limits.min), int(limits.max))
    values = pa.array(data.draw(st.lists(some, min_size=len(keys), max_size=len(keys))), kind)
    _assert_same(keys, values, function)


@given(keys=key_columns(), data=st.data(), function=st.sampled_from(FUNCTIONS))
def test_floats_are_grouped_as_by_arrow(keys: Any, data: st.DataObject, function: str) -> None:
    some = st.floats(width=32)
    values = pa.array(
        data.draw(st.lists(some, min_size=len(keys), max_size=len(keys))),
        data.draw(st.sampled_from([pa.float32(), pa.float64()])),
    )
    _assert_same(keys, values, function)


def _assert_same(keys: Any, values: Any, function: str) -> None:
    (arrow_keys,), (expected,) = grouped([keys], [values], [function])
    with mock.patch.object(dense_groups, "_FEWEST", 0), mock.patch.object(dense_groups, "_SPARSE", 50):
        found = densely_grouped(keys, [values], [function])
        assert is_dense(keys)
    if found is None:
        assert function in ("sum", "min", "max")
        return
    assert found[0].type == keys.type
    assert found[1][0].type == expected.type
    want, got = rows_of(arrow_keys, expected.to_pylist()), rows_of(found[0], found[1][0].to_pylist())
    assert want.keys() == got.keys()
    for key, value in want.items():
        assert got[key] == value or (math.isnan(got[key]) and math.isnan(value))


@pytest.mark.parametrize(("kind", "ends"), [("int8", (-128, 127)), ("int16", (-20_000, 20_000)), ("uint8", (0, 255))])
@pytest.mark.parametrize(("function", "expected"), [("sum", 450_000), ("count_all", 100_000), ("max", 6 + 7 + 8 + 9)])
def test_keys_whose_distance_does_not_fit_their_type(
    kind: str, ends: tuple[int, int], function: str, expected: int
) -> None:
    keys = pa.array(numpy.resize(numpy.array([*ends, ends[0] + 1, ends[1] - 1], kind), 100_000))
    values = pa.array(numpy.arange(100_000) % 10 if function != "max" else numpy.arange(100_000) % 4 + 6)
    found = densely_grouped(keys, [values], [function])
    assert found is not None
    assert found[0].type == keys.type
    assert found[0].to_pylist() == sorted([*ends, ends[0] + 1, ends[1] - 1])
    assert sum(found[1][0].to_pylist()) == expected


def test_it_is_what_large_tables_take() -> None:
    keys = pa.array(numpy.arange(100_000) % 5000 - 700)
    values = pa.array(numpy.arange(100_000))
    with mock.patch("paibook.runtimes.mapreduce.aggregates._cut", side_effect=AssertionError("Arrow's group-by")):
        (found,), (sums, most) = grouped([keys], [values, values], ["sum", "max"])
    assert found.to_pylist() == list(range(-700, 4300))
    assert sums.to_pylist() == [sum(range(i, 100_000, 5000)) for i in range(5000)]
    assert most.to_pylist() == list(range(95_000, 100_000))


@pytest.mark.parametrize(
    ("keys", "values"),
    [
        (pa.array(range(0, 100_000, 20)), pa.array([1] * 5000)),  # far apart
        (pa.array([*range(4999), None]), pa.array([1] * 5000)),
        (pa.array([1.0] * 5000), pa.array([1] * 5000)),
        (pa.array(range(5000)), pa.array([*[1] * 4999, None])),
        (pa.array(range(5000)), pa.array([1 << 62] * 5000)),  # sums beyond 64 bits
        (pa.array([1] * 10), pa.array([1] * 10)),  # too few to look at
        (pa.array(range(5000)), pa.array(["text"] * 5000)),
    ],
)
def test_what_it_is_not_for(keys: Any, values: Any) -> None:
    assert densely_grouped(keys, [values], ["sum"]) is None
