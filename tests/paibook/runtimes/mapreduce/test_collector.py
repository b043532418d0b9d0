"""The collector: pairs of any kinds in any order come out as they went in, as columns again after an odd one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paibook.runtimes.mapreduce import collector
from paibook.runtimes.mapreduce.collector import Collector
from paibook.runtimes.mapreduce.report import Report
from paibook.runtimes.mapreduce.shuffle import Segment, ShuffleWriter, blocks, merged

BUCKETS = 3


def summed(key: Any, values: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    yield key, sum(values)


def opened(folder: Path | None = None, combine: Any = None, budget: int = 1 << 30) -> tuple[Collector, Report]:
    functions: Any = SimpleNamespace(pair_combiner=combine, partition=None)
    report = Report()
    return Collector(functions, ShuffleWriter(folder, BUCKETS, "map-0"), budget, "map task 0", report), report


def added(to: Collector, pairs: list[Any]) -> None:
    start = 0
    while start < len(pairs):
        stop = start + to.room
        to.add_pairs(pairs[start:stop])
        start = stop


def groups(buckets: list[list[Segment]]) -> dict[Any, list[Any]]:
    return {key: values for bucket in buckets for key, values in merged(blocks(bucket)).items()}


@pytest.mark.parametrize("odd", [None, 0.5, 2**70, "text", (1, 2)], ids=repr)
@pytest.mark.parametrize("place", [0, 1, 20_000])
def test_after_an_odd_pair_values_are_columns_again(tmp_path: Path, odd: Any, place: int) -> None:
    pairs: list[Any] = [(i % 100, i) for i in range(80_000)]
    pairs[place] = (pairs[place][0], odd)
    to, report = opened(tmp_path)
    added(to, pairs)
    assert not to._columns.has_objects
    assert report.spills in (1, 2)
    assert report.spilled_bytes == to._writer.bytes > 0
    wanted: dict[Any, list[Any]] = {}
    for key, value in pairs:
        wanted.setdefault(key, []).append(value)
    assert groups(to.close()) == wanted


def test_kinds_that_go_on_alternating_are_written_ever_more_rarely() -> None:
    to, report = opened()
    for number in range(60):
        added(to, [(i % 100, float(i) if number % 2 else i) for i in range(9000)])
    assert 2 <= report.spills <= 10


def test_an_odd_pair_does_not_keep_others_from_being_combined() -> None:
    pairs: list[Any] = [(i % 100, 1) for i in range(60_000)]
    pairs[30_000] = (0, 0.5)
    to, _ = opened(combine=summed)
    added(to, pairs)
    buckets = to.close()
    assert sum(segment.values for bucket in buckets for segment in bucket) <= 300
    assert {key: sum(values) for key, values in groups(buckets).items()} == {0: 599.5} | dict.fromkeys(
        range(1, 100), 600
    )


odd = st.sampled_from([None, 0.5, 2**70, "x", (1, 2), (1, "a"), {"n": 1}])
runs = st.lists(st.tuples(st.integers(0, 2**40) | odd, st.integers(1, 12)), max_size=8)


@settings(max_examples=100)
@given(runs=runs, again=st.integers(1, 10), budget=st.sampled_from([1, 2000, 1 << 30]))
def test_any_kinds_in_any_order_stay_as_they_are(runs: list[Any], again: int, budget: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collector, "AGAIN", again)
        to, report = opened(budget=budget)
        wanted: dict[Any, list[Any]] = {}
        for value, count in runs:
            added(to, [(i % 3, value) for i in range(count)])
            for i in range(count):
                wanted.setdefault(i % 3, []).append(repr(value))
        spilled = to._writer.bytes
        assert report.spilled_bytes == spilled
        assert {key: list(map(repr, values)) for key, values in groups(to.close()).items()} == wanted
