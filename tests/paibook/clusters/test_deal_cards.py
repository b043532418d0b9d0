"""Which new rank gets which card, as pure values: no GPU is needed."""

from __future__ import annotations

import pytest

from paibook.clusters.cards import CardSurvey, NewRank, deal_cards, ranks_that_fit
from paibook.errors import NoGPU, PlanError
from paibook.gpus import Device, Holder, Lease
from paibook.resources import CardChoice

CARDS = [Device(i, "card", 2**34, f"GPU-{i}") for i in range(4)]


def lease(pid: int, card: str, share: int = 100, id: str = "", within: str = "") -> Lease:
    return Lease(id or f"lease-{pid}", card, share, Holder("rank", f"worker of {pid}", pid, 0.0), 0.0, within)


def survey(*leases: Lease, host: str = "h") -> CardSurvey:
    return CardSurvey(host, CARDS, leases)


def new(*ranks: tuple[int, str]) -> list[NewRank]:
    return [NewRank(id, worker, rank) for rank, (id, worker) in enumerate(ranks)]


def numbers(dealt: dict[int, list[Device]]) -> dict[int, list[int]]:
    return {engine: [card.index for card in cards] for engine, cards in dealt.items()}


def test_ranks_of_one_host_get_different_cards_whichever_worker_starts_them() -> None:
    surveys = {"a": survey(), "b": survey()}
    assert numbers(deal_cards(surveys, new((0, "a"), (1, "b"), (2, "a")), 1)) == {0: [0], 1: [1], 2: [2]}


def test_cards_that_are_held_are_left_to_their_holders() -> None:
    here = survey(lease(10, "GPU-0"), lease(11, "GPU-1"))
    assert numbers(deal_cards({"a": here, "b": here}, new((2, "a"), (3, "a")), 1)) == {2: [2], 3: [3]}


def test_a_card_that_is_held_in_part_is_not_whole() -> None:
    assert numbers(deal_cards({"a": survey(lease(10, "GPU-0", 25))}, new((5, "a")), 1)) == {5: [1]}


def test_cards_that_come_back_count_as_free() -> None:
    surveys = {"a": survey(lease(10, "GPU-0"), lease(10, "GPU-1"), lease(11, "GPU-2"))}
    assert numbers(deal_cards(surveys, new((3, "a")), 2, returned={11})) == {3: [2, 3]}


def test_hosts_have_cards_of_their_own() -> None:
    surveys = {"a": survey(lease(10, "GPU-0"), host="h1"), "b": survey(host="h2")}
    assert numbers(deal_cards(surveys, new((0, "a"), (1, "b")), 1)) == {0: [1], 1: [0]}


def test_too_few_free_cards_are_refused_with_those_who_hold_the_others() -> None:
    held = survey(lease(10, "GPU-0"), lease(10, "GPU-1"), lease(11, "GPU-2"))
    said = (
        r"3 of the GPUs of h are held: by rank worker of 10 \(process 10\), rank worker of 11 \(process 11\)."
        r".*1 GPU here.*2 ranks"
    )
    with pytest.raises(PlanError, match=said):
        deal_cards({"a": held}, new((3, "a"), (4, "a")), 1)


def test_no_card_at_all_is_an_error_of_its_own() -> None:
    with pytest.raises(NoGPU, match="no GPU here: 1 rank with 2 each"):
        deal_cards({"a": CardSurvey("h", [], [])}, new((0, "a")), 2)


@pytest.mark.parametrize(("policy", "cards"), [("pack", [0, 0, 1]), ("spread", [0, 1, 2])])
def test_shares_are_packed_or_spread(policy: str, cards: list[int]) -> None:
    ranks = new((0, "a"), (1, "a"), (2, "a"))
    dealt = deal_cards({"a": survey()}, ranks, 1, choice=CardChoice(50), policy=policy)  # type: ignore[arg-type]
    assert numbers(dealt) == {id: [card] for id, card in enumerate(cards)}


def test_a_card_is_not_shared_by_more_than_fit() -> None:
    held = survey(*(lease(10 + i, f"GPU-{i}", 60) for i in range(4)))
    with pytest.raises(PlanError, match=r"50% of 1 GPU asked for: GPU 0 \(card\) is held by .*, 60%"):
        deal_cards({"a": held}, new((0, "a")), 1, choice=CardChoice(50))


def test_chosen_cards_go_to_the_ranks_they_are_named_for() -> None:
    ranks = [NewRank(7, "a", 1), NewRank(8, "a", 0)]
    assert numbers(deal_cards({"a": survey()}, ranks, 1, choice=CardChoice(100, ("3", "1")))) == {7: [1], 8: [3]}


def test_a_chosen_card_that_is_not_there_or_held_is_named() -> None:
    with pytest.raises(PlanError, match="there is no GPU 9 on h; there are 0, 1, 2, 3"):
        deal_cards({"a": survey()}, new((0, "a")), 1, choice=CardChoice(100, ("9",)))
    with pytest.raises(PlanError, match=r"GPU 2 \(card\) is held by rank worker of 10"):
        deal_cards({"a": survey(lease(10, "GPU-2"))}, new((0, "a")), 1, choice=CardChoice(100, ("2",)))


def test_a_kernels_own_cards_are_its_ranks_to_use() -> None:
    kernels = survey(lease(10, "GPU-2", id="k"), lease(11, "GPU-0"))
    assert numbers(deal_cards({"a": kernels}, new((0, "a"), (1, "a")), 1, within="k")) == {0: [2], 1: [1]}
    assert ranks_that_fit({"a": kernels}, "a", 1, within="k") == 3
    assert ranks_that_fit({"a": kernels}, "a", 1) == 2
    assert ranks_that_fit({"a": kernels}, "a", 1, share=50) == 4
