"""Who says what a cell shows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paibook.clusters.contract import Event
from paibook_magics.labels import label_of, merge_equal, ranges


def plain(value: object) -> dict[str, Any]:
    return {"text/plain": repr(value)}


class TestLabels:
    @pytest.mark.parametrize(
        ("source", "rank", "label"),
        [("worker", 0, "[rank 0] "), ("server", 1, "[server 1] "), ("map", 12, "[map 12] ")],
    )
    def test_who_says_it(self, source: str, rank: int, label: str) -> None:
        assert label_of(Event("stdout", source, rank, "")) == label


class TestMerging:
    def test_equal_results_are_one(self) -> None:
        results = {f"[rank {rank}] ": plain(rank // 3) for rank in (3, 0, 2, 1, 10)}
        assert merge_equal(results) == [
            ("[ranks 0-2] ", plain(0)),
            ("[rank 3] ", plain(1)),
            ("[rank 10] ", plain(3)),
        ]

    def test_every_representation_has_to_be_equal(self) -> None:
        results = {"[rank 0] ": {"text/plain": "x", "text/html": "a"}, "[rank 1] ": {"text/plain": "x"}}
        assert [label for label, _bundle in merge_equal(results)] == ["[rank 0] ", "[rank 1] "]

    def test_nothing(self) -> None:
        assert merge_equal({}) == []

    @pytest.mark.parametrize(
        ("numbers", "text"),
        [
            ([], ""),
            ([3], "3"),
            ([0, 1], "0-1"),
            ([2, 0, 1, 5], "0-2, 5"),
            ([0, 2, 4], "0, 2, 4"),
            ([8, 9, 1], "1, 8-9"),
        ],
    )
    def test_ranges(self, numbers: list[int], text: str) -> None:
        assert ranges(numbers) == text

    @given(st.sets(st.integers(0, 40)))
    def test_ranges_name_every_number_once(self, numbers: set[int]) -> None:
        named: list[int] = []
        for part in ranges(list(numbers)).split(", ") if numbers else ():
            first, _, last = part.partition("-")
            named += range(int(first), int(last or first) + 1)
        assert named == sorted(numbers)
