"""Where ranks go: never more than fits, and spread."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paibook.clusters.placement import host_of, place, within_cards
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


@given(FREE, st.data())
def test_ranks_of_one_host_are_neighbours(free: dict[str, int], data: st.DataObject) -> None:
    count, placement = data.draw(st.integers(0, sum(free.values()))), data.draw(st.sampled_from(["spread", "pack"]))
    hosts = [host_of(address) for address in place(free, count, "here", placement=placement)]
    assert len([host for host, _ in groupby(hosts)]) == len(set(hosts))


@given(FREE, st.data())
def test_packed_ranks_fit_and_are_on_as_few_hosts_as_possible(free: dict[str, int], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, sum(free.values())))
    chosen = place(free, count, "here", placement="pack")
    assert len(chosen) == count
    assert all(taken <= free[address] for address, taken in Counter(chosen).items())
    room: Counter[str] = Counter()
    for address, slots in free.items():
        room[host_of(address)] += slots
    fewest = next(n for n in range(len(room) + 1) if sum(slots for _, slots in room.most_common(n)) >= count)
    assert len(set(map(host_of, chosen))) == fewest


def test_packed_ranks_leave_the_larger_hosts_to_larger_groups() -> None:
    free = {"tcp://a:1": 4, "tcp://b:1": 1, "tcp://b:2": 2}
    assert place(free, 2, "here", placement="pack") == ["tcp://b:2"] * 2
    assert place(free, 3, "here", placement="pack") == ["tcp://b:2"] * 2 + ["tcp://b:1"]
    assert place(free, 4, "here", placement="pack") == ["tcp://a:1"] * 4


def test_packed_ranks_join_those_of_their_group() -> None:
    free = {"tcp://a:1": 1, "tcp://b:1": 1, "tcp://b:2": 3}
    assert place(free, 1, "here", placement="pack", near=["tcp://b:2"]) == ["tcp://b:2"]
    assert place(free, 5, "here", placement="pack", near=["tcp://b:1"])[:1] == ["tcp://b:1"]


@given(FREE, st.dictionaries(st.sampled_from("abcd"), st.integers(0, 4)))
def test_slots_are_cut_down_to_the_cards_of_their_host(free: dict[str, int], cards: dict[str, int]) -> None:
    left = within_cards(free, {address: cards.get(host_of(address), 0) for address in free})
    assert left.keys() == free.keys()
    assert all(left[address] <= free[address] for address in free)
    for host in {host_of(address) for address in free}:
        before = sum(slots for address, slots in free.items() if host_of(address) == host)
        assert sum(slots for address, slots in left.items() if host_of(address) == host) == min(
            before, cards.get(host, 0)
        )
