"""Which new rank gets which card, as pure values: no GPU is needed."""

from __future__ import annotations

import pytest

from paibook.clusters.engine_launcher import CardSurvey, deal_cards
from paibook.errors import PlanError
from paibook.gpus import Device

CARDS = [Device(i, "card", 2**34, f"GPU-{i}") for i in range(4)]


def survey(host: str = "h", **held: tuple[str, ...]) -> CardSurvey:
    return host, CARDS, {int(pid.removeprefix("p")): cards for pid, cards in held.items()}


def numbers(dealt: dict[int, list[Device]]) -> dict[int, list[int]]:
    return {engine: [card.index for card in cards] for engine, cards in dealt.items()}


def test_ranks_of_one_host_get_different_cards_whichever_worker_starts_them() -> None:
    surveys = {"a": survey(), "b": survey()}
    assert numbers(deal_cards(surveys, [(0, "a"), (1, "b"), (2, "a")], 1)) == {0: [0], 1: [1], 2: [2]}


def test_cards_of_live_ranks_are_left_to_them() -> None:
    surveys = {"a": survey(p10=("GPU-0",)), "b": survey(p11=("GPU-1",))}  # b takes none of the new ranks
    assert numbers(deal_cards(surveys, [(2, "a"), (3, "a")], 1)) == {2: [2], 3: [3]}


def test_a_replaced_rank_gets_the_card_that_was_freed() -> None:
    assert numbers(deal_cards({"a": survey(p10=("GPU-0",), p12=("GPU-2",))}, [(5, "a")], 1)) == {5: [1]}


def test_cards_that_come_back_count_as_free() -> None:
    surveys = {"a": survey(p10=("GPU-0", "GPU-1"), p11=("GPU-2",))}
    assert numbers(deal_cards(surveys, [(3, "a")], 2, returned={11})) == {3: [2, 3]}


def test_hosts_have_cards_of_their_own() -> None:
    surveys = {"a": survey("h1", p10=("GPU-0",)), "b": survey("h2")}
    assert numbers(deal_cards(surveys, [(0, "a"), (1, "b")], 1)) == {0: [1], 1: [0]}


def test_too_few_free_cards_are_refused_with_those_that_are_held() -> None:
    with pytest.raises(PlanError, match=r"3 of the GPUs of h are held by running ranks.*1 GPU here.*2 ranks"):
        deal_cards({"a": survey(p10=("GPU-0", "GPU-1"), p11=("GPU-2",))}, [(3, "a"), (4, "a")], 1)
