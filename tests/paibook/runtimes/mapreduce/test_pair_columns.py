"""Pairs through columns: every value comes back at its key, of its own type, in order, whatever else came."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paibook.runtimes.mapreduce import pair_columns, value_columns
from paibook.runtimes.mapreduce.column_groups import ColumnGroups
from paibook.runtimes.mapreduce.pair_columns import PairColumns
from paibook.runtimes.mapreduce.shuffle import Segment, ShuffleWriter, bucket_numbers


class Point(NamedTuple):
    x: int
    y: str


TEXTS = ["", "a", "b\x00c", "ä", "\ud800", "word"]
scalars = (
    st.integers()
    | st.integers(-300, 300)
    | st.floats(allow_nan=False)
    | st.sampled_from(TEXTS)
    | st.text(max_size=3)
    | st.booleans()
    | st.none()
)
values = (
    scalars
    | st.tuples(scalars)
    | st.tuples(st.sampled_from(TEXTS), st.integers())
    | st.tuples(st.text(max_size=3), scalars, st.floats(allow_nan=False))
    | st.just(())
    | st.builds(Point, st.integers(), st.text(max_size=2))
    | st.lists(st.integers(), max_size=2)
)
keys = st.sampled_from(["a", "b", "", 1, 1.0, True, None, (1, "x"), 2**70, b"b"])
# Batches of one kind of value are what columns are for; those of many kinds are what may break them.
batches = st.lists(
    st.lists(st.tuples(keys, values), min_size=1, max_size=12)
    | st.lists(st.tuples(keys, st.tuples(st.sampled_from(TEXTS), st.integers())), min_size=1, max_size=12)
    | st.lists(st.tuples(keys, st.integers(-5, 5)), min_size=1, max_size=12),
    max_size=6,
)


def written(columns: PairColumns, buckets: int, folder: Path | None = None) -> list[list[Segment]]:
    writer = ShuffleWriter(folder, buckets, "map-0")
    columns.write(writer, lambda keys: bucket_numbers(keys, buckets))
    return writer.close()


def collected(all_pairs: list[list[Any]], buckets: int) -> list[list[Segment]]:
    """As a task's collector does it."""
    columns, outputs = PairColumns(), []
    for pairs in all_pairs:
        if not columns.add(pairs):
            outputs.append(written(columns, buckets))
            columns.use_objects()
            assert columns.add(pairs)
    outputs.append(written(columns, buckets))
    return [[segment for output in outputs for segment in output[bucket]] for bucket in range(buckets)]


def grouped(all_pairs: list[list[Any]]) -> dict[Any, list[Any]]:
    groups: dict[Any, list[Any]] = defaultdict(list)
    for pairs in all_pairs:
        for key, value in pairs:
            groups[key].append(value)
    return groups


def shown(groups: dict[Any, list[Any]]) -> dict[Any, list[tuple[type, str]]]:
    return {key: [(type(value), repr(value)) for value in found] for key, found in groups.items()}


@settings(max_examples=200)
@given(batches, st.integers(1, 4), st.integers(1, 5), st.integers(1, 4))
def test_every_value_comes_back_at_its_key(all_pairs: list[list[Any]], buckets: int, at_once: int, few: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair_columns, "AT_ONCE", at_once)
        patch.setattr(pair_columns, "BLOCK_VALUES", 3)
        patch.setattr(value_columns, "FEW", few)
        found: dict[Any, list[Any]] = {}
        for segments in collected(all_pairs, buckets):
            if segments:
                part = dict(ColumnGroups(segments))
                assert not found.keys() & part.keys()
                found.update(part)
    assert shown(found) == shown(grouped(all_pairs))


@settings(max_examples=50)
@given(batches, st.integers(1, 5))
def test_groups_before_they_are_sent(all_pairs: list[list[Any]], at_once: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair_columns, "AT_ONCE", at_once)
        for pairs in all_pairs:
            columns = PairColumns()
            if not columns.add(pairs):  # a whole number beyond 64 bits
                columns.use_objects()
                assert columns.add(pairs)
            assert shown(dict(columns.groups())) == shown(grouped([pairs]))
            assert columns.rows == 0


def test_special_numbers_and_arrays() -> None:
    pairs = [("k", value) for value in (-0.0, math.inf, -math.inf, math.nan)]
    (segments,) = collected([pairs], 1)
    ((_, found),) = ColumnGroups(segments)
    assert list(map(repr, found)) == ["-0.0", "inf", "-inf", "nan"]
    arrays = [numpy.arange(3), numpy.arange(3) + 1]
    (segments,) = collected([[("k", array) for array in arrays], [("k", numpy.int16(3))]], 1)
    ((_, found),) = ColumnGroups(segments)
    assert numpy.array_equal(found[:2], arrays)
    assert (type(found[2]), found[2]) == (numpy.int16, 3)


def test_keys_come_in_order_nan_last() -> None:
    pairs = [(float("nan"), 1), (2, 2), (math.nan, 3), (1.5, 4)]
    (segments,) = collected([pairs[:2], pairs[2:]], 1)
    groups = ColumnGroups(segments, descending=True)
    assert groups.comparable
    assert [found for _, found in groups] == [[2], [4], [1, 3]]


def test_a_key_of_very_many_values_is_one_group(tmp_path: Path) -> None:
    pairs = [("hot", i) for i in range(450_000)] + [("cold", -1)]
    columns = PairColumns()
    for start in range(0, len(pairs), 8192):
        assert columns.add(pairs[start : start + 8192])
    (segments,) = written(columns, 1, tmp_path)
    assert len(segments) > 2
    groups = ColumnGroups(segments)
    assert dict(groups) == {"hot": list(range(450_000)), "cold": [-1]}
    assert [(size.key, size.values) for size in groups.largest()] == [("'hot'", 450_000), ("'cold'", 1)]


@pytest.mark.parametrize("pair", [5, (1,), (1, 2, 3), "ab", b"ab", {1, 2}, {"a": 1, "b": 2}, ([1], 2)])
def test_what_is_no_pair_is_refused(pair: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        PairColumns().add([("a", 1), pair])
