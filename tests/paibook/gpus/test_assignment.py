"""Cards as values: no card is needed to test who gets which."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paibook.errors import PlanError
from paibook.gpus import Device, assign

GIB = 2**30


def cards(count: int) -> list[Device]:
    return [Device(i, "NVIDIA H200", 140 * GIB, f"GPU-{i}") for i in range(count)]


def test_each_rank_gets_its_own_neighbouring_cards() -> None:
    given_out = assign(cards(5), ranks=2, per_rank=2)
    assert {rank: [card.index for card in got] for rank, got in given_out.items()} == {0: [0, 1], 1: [2, 3]}


def test_no_cards_asked_needs_none_there() -> None:
    assert assign([], ranks=3, per_rank=0) == {0: [], 1: [], 2: []}


@given(there=st.integers(0, 16), ranks=st.integers(0, 16), per_rank=st.integers(0, 4))
def test_no_card_is_given_twice_and_a_shortage_is_an_error(there: int, ranks: int, per_rank: int) -> None:
    if ranks * per_rank > there:
        with pytest.raises(PlanError):
            assign(cards(there), ranks, per_rank)
        return
    got = assign(cards(there), ranks, per_rank)
    indices = [card.index for each in got.values() for card in each]
    assert sorted(got) == list(range(ranks))
    assert all(len(each) == per_rank for each in got.values())
    assert len(set(indices)) == len(indices)


def test_no_card_at_all_says_how_to_run_without() -> None:
    with pytest.raises(
        PlanError, match=r"no GPU here: 4 ranks with 1 each \(4 in all\).*leave out -g to run on the CPU"
    ):
        assign([], ranks=4, per_rank=1)


@pytest.mark.parametrize(("ranks", "per_rank", "advice"), [(4, 1, "use -n 2 or fewer"), (1, 3, "use -g 2 or fewer")])
def test_a_shortage_says_what_is_there_and_what_was_asked(ranks: int, per_rank: int, advice: str) -> None:
    with pytest.raises(PlanError) as caught:
        assign(cards(2), ranks, per_rank)
    message = str(caught.value)
    assert "2 GPUs here (0: NVIDIA H200, 140 GiB, 1: NVIDIA H200, 140 GiB)" in message
    assert f"with {per_rank} each" in message
    assert advice in message


def test_negative_numbers_are_refused() -> None:
    with pytest.raises(PlanError, match="0 or more"):
        assign(cards(2), ranks=-1, per_rank=1)
