"""What a run asks for is refused where it cannot be meant."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from paibook.errors import PlanError
from paibook.resources import Resources


def test_nothing_asked_means_what_the_cluster_has() -> None:
    assert Resources() == Resources(workers=0, servers=0, gpus_per_worker=0, memory=None, placement="spread")


@pytest.mark.parametrize("name", ["workers", "servers", "gpus_per_worker"])
@pytest.mark.parametrize("value", [-1, 1.5, "2", None])
def test_a_count_that_is_none_is_named(name: str, value: Any) -> None:
    with pytest.raises(PlanError, match=rf"{name} must be a whole number, 0 or more; got {value!r}"):
        Resources(**{name: value})


@pytest.mark.parametrize("value", [-1, 0, "1 GB", 1.5])
def test_memory_that_cannot_be_meant_is_named(value: Any) -> None:
    with pytest.raises(PlanError, match="memory must be a whole number of bytes, 1 or more, or None"):
        Resources(memory=value)


def test_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Resources().workers = 3  # type: ignore[misc]


@pytest.mark.parametrize("value", ["packed", None, 1])
def test_a_placement_that_does_not_exist_is_named(value: Any) -> None:
    with pytest.raises(PlanError, match=rf"placement must be spread or pack; got {value!r}"):
        Resources(placement=value)


@pytest.mark.parametrize("value", [0, 101, 0.5, "50%", None])
def test_a_share_that_cannot_be_meant_is_named(value: Any) -> None:
    with pytest.raises(PlanError, match=rf"gpu_share must be a whole number of percent, 1 to 100; got {value!r}"):
        Resources(gpu_share=value)


def test_cards_are_named_for_each_rank_once() -> None:
    assert Resources(2, gpus_per_worker=2, cards=("0", "1", "1", "0")).card_choice.of_rank(1, 2) == ("1", "0")
    with pytest.raises(PlanError, match="cards names 3 cards, and 2 workers with 1 each have 2"):
        Resources(2, gpus_per_worker=1, cards=("0", "1", "2"))
    with pytest.raises(PlanError, match="cards gives rank 1 one card twice: 1, 1"):
        Resources(2, gpus_per_worker=2, cards=("0", "1", "1", "1"))
