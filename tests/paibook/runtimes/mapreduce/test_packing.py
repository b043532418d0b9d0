"""Packed values come back equal and of the same types."""

from __future__ import annotations

import math
import pickle
import random
from dataclasses import dataclass
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paibook.runtimes.mapreduce.packing import pack, unpack

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
    | st.lists(st.dictionaries(scalars, st.lists(scalars, max_size=2), max_size=2))
    | st.lists(st.recursive(scalars, lambda inner: st.lists(inner, max_size=2) | st.tuples(inner), max_leaves=9))
    | st.lists(st.sampled_from(["a", "b\0", "é"]), min_size=20, max_size=50)
    | st.lists(st.sampled_from([-1, 2**15, 2**31]), max_size=5)
)


@dataclass
class Point:
    x: int


class Word(str):
    pass


def typed(value: Any) -> Any:
    if isinstance(value, dict):
        return (type(value), [typed(item) for pair in value.items() for item in pair])
    if isinstance(value, numpy.ndarray):
        return (type(value), value.dtype, value.tolist())
    inner = [typed(item) for item in value] if isinstance(value, (list, tuple)) else repr(value)
    return (type(value), inner)


@settings(deadline=None)
@given(lists)
def test_what_is_packed_comes_back(values: list[Any]) -> None:
    assert typed(unpack(pack(values))) == typed(values)


@pytest.mark.parametrize(
    "values", [[""], [], ["a\0b"], ["", ""], [2**63], [()], [(), ()], [True, 1], [1, 1.0], [5] * 9, [-(2**63)]]
)
def test_corner_cases(values: list[Any]) -> None:
    assert typed(unpack(pack(values))) == typed(values)


def test_lambdas_travel() -> None:
    assert unpack(pack([lambda x: x + 1]))[0](1) == 2


def test_homogeneous_columns_are_small() -> None:
    assert len(pack([(f"w{i % 10}", 1.5) for i in range(1000)])) < 12_000
    assert len(pack(list(range(1000)))) < 2_200
    assert len(pack([1] * 1000)) < 200


# Subclasses, whatever numpy has, containers of them.
STRANGE: list[list[Any]] = [
    [Word("a")],
    [("a", Word("b"))],
    [{"a": Word("b")}],
    [{Word("a"): 1}],
    [[Word("a")], ["b"]],
    [bytearray(b"a")],
    [[bytearray(b"a")]],
    [{1, 2}],
    [[Point(1)]],
    [range(3)],
    [[[[[[[1]]]]]]],
    [numpy.float64(0.1), numpy.float64("inf")],
    [numpy.int8(3)],
    [numpy.int64(3), 3],
    [[numpy.int64(3)]],
    [numpy.bool_(True)],
    [numpy.str_("a")],
    [numpy.datetime64("2020-01-01")],
    [numpy.arange(3), numpy.arange(3, 6)],
    [numpy.arange(3), numpy.arange(4)],
    [numpy.arange(3), numpy.arange(3.0)],
    [numpy.array(3)],
    [numpy.array(["a"])],
    [numpy.array([None, 1], dtype=object)],
    [numpy.zeros((0, 2)), numpy.zeros((0, 2))],
]


@pytest.mark.parametrize("values", STRANGE, ids=repr)
def test_types_are_kept(values: list[Any]) -> None:
    assert typed(unpack(pack(values))) == typed(values)


def test_nan_and_minus_zero_are_kept() -> None:
    for values in ([math.nan, -0.0], [math.nan, 1], [[math.nan, -0.0]], [numpy.float64("nan")]):
        assert repr(unpack(pack(values))) == repr(values)


def test_circular_lists_come_back() -> None:
    values: list[Any] = [1]
    values.append(values)
    found = unpack(pack([values]))[0]
    assert found[1] is found


def test_arrays_do_not_keep_each_other_in_memory() -> None:
    arrays = unpack(pack([numpy.arange(3), numpy.arange(3)]))
    assert all(array.base is None for array in arrays)
    arrays[0][0] = 7  # writable, as what was packed
    assert arrays[1].tolist() == [0, 1, 2]


def test_what_repeats_is_one_object_again() -> None:
    words = [f"word {random.randrange(50)}" for _ in range(5000)]
    found = unpack(pack(words))
    assert found == words
    assert len(set(map(id, found))) == 50
    assert len(pack(words)) < 30_000


def test_what_cannot_be_pickled_says_so() -> None:
    with pytest.raises((TypeError, pickle.PicklingError), match="generator"):
        pack([(i for i in "ab")])


def test_arrays_of_the_other_byte_order_keep_their_values_and_type() -> None:
    for code in (">i4", "<i4", ">f8", ">u2"):
        arrays = [numpy.array([1, 2], code), numpy.array([3, 4], code)]
        found = unpack(pack(arrays))
        assert [array.tolist() for array in found] == [[1, 2], [3, 4]]
        assert {array.dtype.str for array in found} == {code}
