"""What map tasks hand on arrives: every value at its key, in order."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paibook.runtimes.mapreduce.pair_columns import PairColumns
from paibook.runtimes.mapreduce.shuffle import Segment, ShuffleWriter, blocks, bucket_numbers, merged

scalars = st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.booleans() | st.none()
group_lists = st.lists(
    st.dictionaries(st.text(max_size=5) | st.integers(), st.lists(scalars, min_size=1, max_size=3), max_size=8)
)


def written(groups: dict[Any, list[Any]], count: int, folder: Path | None) -> list[list[Segment]]:
    writer = ShuffleWriter(folder, count, "map-0")
    columns = PairColumns()
    columns.use_objects()
    columns.add([(key, value) for key, values in groups.items() for value in values])
    columns.write(writer, lambda keys: bucket_numbers(keys, count))
    return writer.close()


@pytest.mark.parametrize("on_disk", [True, False])
def test_every_value_reaches_its_key_in_order(on_disk: bool, tmp_path: Path) -> None:
    @settings(deadline=None, max_examples=50)
    @given(group_lists, st.integers(1, 5))
    def check(all_groups: list[dict[Any, list[Any]]], count: int) -> None:
        expected: dict[Any, list[Any]] = {}
        for groups in all_groups:
            for key, values in groups.items():
                expected.setdefault(key, []).extend(values)
        outputs = [written(groups, count, tmp_path if on_disk else None) for groups in all_groups]
        found: dict[Any, list[Any]] = {}
        for number in range(count):
            part = merged(blocks(segment for output in outputs for segment in output[number]))
            assert not found.keys() & part.keys()
            found.update(part)
        assert {key: list(map(repr, values)) for key, values in found.items()} == {
            key: list(map(repr, values)) for key, values in expected.items()
        }

    check()


def test_nan_keys_are_one_group() -> None:
    outputs = [written({math.nan: [1], 2.0: [2]}, 1, None), written({float("nan"): [3]}, 1, None)]
    groups = merged(blocks(segment for output in outputs for segment in output[0]))
    assert sorted(groups.values()) == [[1, 3], [2]]
