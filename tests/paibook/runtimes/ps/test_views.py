"""Views: whoever dies and joins, each partition is answered for while a copy of it lives, and work is spread."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paibook.runtimes.ps.views import (
    Address,
    PartitionLost,
    View,
    after_loss,
    first_view,
    next_move,
    with_copy,
    with_joined,
    with_moved,
)


def start(servers: int, replicas: int) -> View:
    return first_view({rank: Address("h", 1000 + rank) for rank in range(servers)}, replicas)


@given(st.integers(1, 6), st.integers(0, 3), st.data())
def test_whatever_happens_a_copy_that_lives_answers(servers: int, replicas: int, data: st.DataObject) -> None:
    view = start(servers, replicas)
    copies = [set(view.chain(p)) for p in range(servers)]  # who has all of a partition
    for step in range(1, 30):
        number = view.number
        action = data.draw(st.sampled_from(["lose", "join", "copy", "move"]))
        if action == "lose":
            lost = data.draw(st.sampled_from(sorted(view.addresses)))
            copies = [holders - {lost} for holders in copies]
            if not all(copies):
                with pytest.raises(PartitionLost, match=f"server {lost} held the last copy"):
                    after_loss(view, lost)
                return
            view = after_loss(view, lost)
        elif action == "join":
            absent = sorted(set(range(servers)) - set(view.addresses))
            if absent:
                view = with_joined(view, absent[0], Address("h", 2000 + step, step))
        elif action == "move":
            if (move := next_move(view)) is not None:
                view = with_moved(view, move)
                assert view.primaries[move.partition] == move.server
        else:
            partition = data.draw(st.integers(0, servers - 1))
            server = view.building[partition]
            if server is not None:
                view = with_copy(view, partition, server)
                assert server in view.backups[partition]
                copies[partition] = {view.primaries[partition], *view.backups[partition]}
            assert with_copy(view, partition, -1) is view
        assert view.number >= number
        for partition in range(servers):
            chain = view.chain(partition)
            spare = view.building[partition] is not None
            assert len(set(chain)) == len(chain) <= view.replicas + 1 + spare
            assert set(chain) <= set(view.addresses)
            kept = (view.primaries[partition], *view.backups[partition])
            assert set(kept) == copies[partition]  # what the view says is in sync is
            # A copy is being made wherever one is missing and there is a server for it.
            assert spare or len(chain) == min(view.replicas + 1, len(view.addresses))
        assert View.from_wire(json.loads(json.dumps(view.to_wire()))) == view


def settled(view: View) -> View:
    """The view once all copies are made and all primaries moved."""
    for _ in range(100):
        building = [p for p, server in enumerate(view.building) if server is not None]
        move = next_move(view)
        if building:
            view = with_copy(view, building[0], view.building[building[0]])
        elif move is not None:
            view = with_moved(view, move)
        else:
            return view
    raise AssertionError(f"it never comes to rest: {view}")


@given(st.integers(2, 6), st.integers(1, 2), st.data())
def test_after_every_server_was_replaced_copies_are_spread(servers: int, replicas: int, data: st.DataObject) -> None:
    view = start(servers, replicas)
    order = data.draw(st.permutations(range(servers)))
    for count, rank in enumerate(order):
        view = with_joined(after_loss(view, rank), rank, Address("h", 3000 + count, 1))
        view = settled(view)
    held = [sum(rank in view.chain(p) for p in range(servers)) for rank in range(servers)]
    assert sum(held) == servers * (min(replicas, servers - 1) + 1)
    for rank in range(servers):  # nobody has two more than another, unless as a primary, whose copies are not moved
        movable = any(rank in view.backups[p] and held.index(min(held)) not in view.chain(p) for p in range(servers))
        assert held[rank] <= min(held) + 1 or not movable
    assert sorted(view.primaries) == list(range(servers))  # each answers for one again


def test_a_chain_goes_on_without_its_middle() -> None:
    view = start(4, 2)
    assert view.chain(1) == (1, 2, 3)
    less = after_loss(view, 2)
    assert (less.primaries[1], less.backups[1], less.building[1]) == (1, (3,), 0)
    assert [less.successor(1, rank) for rank in (1, 3, 0)] == [3, 0, None]
