"""Where ranks go: never more than fits, and spread."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paibook.clusters.placement import place
from paibook.errors import ClusterError

FREE = st.dictionaries(st.from_regex(r"tcp://[a-d]:\d", fullmatch=True), st.integers(0, 6), max_size=6)


@given(FREE, st.data())
def test_what_fits_is_placed_within_what_is_free(free: dict[str, int], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, sum(free.values())))
    before = dict(free)
    chosen = place(free, count, "here")
    assert len(chosen) == count
    assert all(taken <= free[address] for address, taken in Counter(chosen).items())
    assert free == before


@given(FREE, st.data())
def test_ranks_are_spread(free: dict[str, int], data: st.DataObject) -> None:
    taken = Counter(place(free, data.draw(st.integers(0, sum(free.values()))), "here"))
    left = {address: slots - taken[address] for address, slots in free.items()}
    # Where a rank went, no other worker was left with clearly more room.
    assert all(left[address] + 1 >= max(left.values()) for address in taken)


@given(st.integers(1, 8), st.integers(1, 8))
def test_equal_workers_get_equal_shares(workers: int, each: int) -> None:
    taken = Counter(place({f"w{i}": each + 3 for i in range(workers)}, workers * each, "here"))
    assert set(taken.values()) == {each}


@given(FREE, st.integers(1, 5))
def test_what_does_not_fit_is_refused(free: dict[str, int], beyond: int) -> None:
    total = sum(free.values())
    with pytest.raises(ClusterError, match=f"{total + beyond} asked for, 0 of this session running, {total} free"):
        place(free, total + beyond, "here")


def test_the_refusal_says_where_and_what_to_do() -> None:
    with pytest.raises(ClusterError) as caught:
        place({"a": 1, "b": 2}, 4, "tcp://host:8786", asked=9, held=5)
    assert str(caught.value) == (
        "not enough room for ranks on tcp://host:8786: 9 asked for, 5 of this session running, 3 free on 2 workers; "
        "ask for fewer with -n, or add workers"
    )


def test_equal_workers_are_taken_in_their_order() -> None:
    assert place({"b": 1, "a": 1}, 2, "here") == ["b", "a"]
