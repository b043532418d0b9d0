"""Packed values come back equal and of the same types."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paibook.runtimes.mapreduce.packing import pack, unpack
from paibook.runtimes.mapreduce.shuffle import Buckets, merged

texts = st.text(st.characters(), max_size=5)  # lone surrogates and NUL included
scalars = st.integers() | st.floats(allow_nan=False) | texts | st.booleans() | st.none() | st.binary(max_size=3)
lists = (
    st.lists(scalars)
    | st.lists(texts)
    | st.lists(st.integers())
    | st.lists(st.floats(allow_nan=False))
    | st.lists(st.tuples(texts, st.integers()))
    | st.lists(st.tuples(st.tuples(texts, st.floats(allow_nan=False)), scalars))
    | st.lists(st.lists(scalars, max_size=2))
)


def typed(value: Any) -> Any:
    inner = [typed(item) for item in value] if isinstance(value, (list, tuple)) else repr(value)
    return (type(value), inner)


@settings(deadline=None)
@given(lists)
def test_what_is_packed_comes_back(values: list[Any]) -> None:
    assert typed(unpack(pack(values))) == typed(values)


@pytest.mark.parametrize("values", [[""], [], ["a\0b"], ["", ""], [2**63], [()], [(), ()], [True, 1], [1, 1.0]])
def test_corner_cases(values: list[Any]) -> None:
    assert typed(unpack(pack(values))) == typed(values)


def test_lambdas_travel() -> None:
    assert unpack(pack([lambda x: x + 1]))[0](1) == 2


def test_homogeneous_columns_are_small() -> None:
    assert len(pack([(f"w{i % 10}", 1.5) for i in range(1000)])) < 12_000
    assert len(pack(list(range(1000)))) < 8_200


group_lists = st.lists(st.dictionaries(texts | st.integers(), st.lists(scalars, min_size=1, max_size=3), max_size=8))


@settings(deadline=None)
@given(group_lists, st.integers(1, 5))
def test_every_value_reaches_its_key_in_order(all_groups: list[dict[Any, list[Any]]], count: int) -> None:
    expected: dict[Any, list[Any]] = {}
    outputs = []
    for groups in all_groups:
        buckets = Buckets(count)
        buckets.add(groups)
        outputs.append(buckets.buckets)
        for key, values in groups.items():
            expected.setdefault(key, []).extend(values)
    found: dict[Any, list[Any]] = {}
    for number in range(count):
        part = merged(output[number] for output in outputs)
        assert not found.keys() & part.keys()
        found.update(part)
    assert {key: typed(values) for key, values in found.items()} == {k: typed(v) for k, v in expected.items()}


def test_nan_keys_are_one_group() -> None:
    buckets = Buckets(1)
    buckets.add({math.nan: [1], 2.0: [2]})
    buckets.add({float("nan"): [3]})
    groups = merged([buckets.buckets[0]])
    assert sorted(groups.values()) == [[1, 3], [2]]
