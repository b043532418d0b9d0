"""Snapshots kept by ranks: which are kept, who may ask for them, and which one a new group goes on from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from paibook.comms.communicator import CommunicatorError
from paibook.comms.wire import new_token
from paibook.runtimes.allreduce.elastic import Losses, choose
from paibook.runtimes.allreduce.keeper import SHARED, Keeper, Kept, Mark, PeerKeeper

TOKEN = new_token()


def message(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.uint8)


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    made = Keeper()
    made.listen("127.0.0.1", TOKEN)
    yield made
    made.close()


def kept(own: int, *marks: Mark, held: int | None = None, held_marks: tuple[Mark, ...] = ()) -> Kept:
    """What a rank has: its own snapshots, and those it holds for another."""
    parts: dict[Mark, frozenset[int]] = {mark: frozenset({own}) for mark in marks}
    for mark in held_marks:
        parts[mark] = parts.get(mark, frozenset()) | {held}
    return Kept(frozenset(marks), parts)


def test_two_generations_of_an_attempt_stay(keeper: Keeper) -> None:
    for commit in range(4):
        keeper.put(Mark(1, commit), 0, message(commit))
    keeper.put(Mark(2, 3), 0, message(9))
    assert set(keeper.kept().parts) == {Mark(1, 2), Mark(1, 3), Mark(2, 3)}
    keeper.drop(before=2)
    assert set(keeper.kept().parts) == {Mark(2, 3)}


def test_a_peer_puts_and_gets(keeper: Keeper) -> None:
    assert keeper.address is not None
    peer = PeerKeeper(1, keeper.address, TOKEN)
    mark = Mark(1, 4, 2, 40, True)
    peer.put(mark, 0, message(1, 2, 3))
    peer.put(mark, SHARED, message())
    assert peer.get(mark, 0).tolist() == [1, 2, 3]
    assert peer.get(mark, SHARED).tolist() == []
    with pytest.raises(CommunicatorError, match=r"rank 1 does not have commit 5 any more"):
        peer.get(Mark(1, 5), 0)
    peer.close()
    assert [(m.step, m.per_rank) for m in keeper.kept().parts] == [(40, True)]


def test_strangers_get_nothing(keeper: Keeper) -> None:
    assert keeper.address is not None
    with pytest.raises(CommunicatorError, match="cannot keep a part"):
        PeerKeeper(1, keeper.address, new_token()).put(Mark(1, 0), 0, message(1))
    assert not keeper.kept().parts


def test_the_last_snapshot_that_all_had_is_chosen() -> None:
    old, new = Mark(1, 4, 3, per_rank=True), Mark(1, 5, 3, per_rank=True)
    # Rank 1 died while it committed: its new part did not reach rank 2.
    found = choose(
        {0: kept(0, old, new, held=2, held_marks=(old, new)), 2: kept(2, old, new, held=1, held_marks=(old,))}
    )
    assert found is not None
    assert (found.mark, found.shared, dict(found.parts)) == (old, 0, {0: 0, 1: 2, 2: 2})


def test_without_entries_of_their_own_survivors_suffice() -> None:
    old, new = Mark(1, 4, 3), Mark(1, 5, 3)
    found = choose({0: kept(0, old, new)})  # ranks 1 and 2 died together
    assert found is not None
    assert found.mark == new
    found = choose({0: kept(0, old, new), 1: kept(1, old)})
    assert found is not None
    assert found.mark == old


def test_a_rank_and_its_peer_that_die_together_take_their_parts_along() -> None:
    mark = Mark(1, 4, 3, per_rank=True)
    assert choose({0: kept(0, mark)}) is None
    assert choose({}) is None


def test_a_death_while_the_new_group_commits_goes_back_to_the_old_groups_snapshot() -> None:
    old, again = Mark(1, 4, 2, per_rank=True), Mark(2, 4, 2, per_rank=True)
    first = kept(0, old, again, held=1, held_marks=(old,))
    found = choose({0: first})
    assert found is not None
    assert found.mark == old


def test_a_cell_that_ends_its_rank_at_one_step_is_told_so() -> None:
    from paibook.errors import RankLost
    from paibook.runtimes.allreduce.cell import Report

    losses = Losses(1)
    loss = RankLost("worker", 1, "its process was killed by SIGSEGV")
    for _ in range(2):
        assert not losses.exhausted
        losses.add([loss], [Report(0, kept=Kept(step=7))])
    assert losses.exhausted
    assert "--max-restarts is 1. It was at step 7 every time" in str(losses.error(loss))
