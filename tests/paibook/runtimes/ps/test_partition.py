"""A partition by itself: pushes are done once, count when they are confirmed, and a copy is the whole of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from paibook.comms.wire import ChannelClosed, Header
from paibook.runtimes.ps.chain import Successor, follow
from paibook.runtimes.ps.messages import MASK, Op
from paibook.runtimes.ps.partition import Partition
from paibook.runtimes.ps.shards import TableSpec
from paibook.runtimes.ps.tables import DenseTable
from paibook.runtimes.ps.views import Address

SPEC = TableSpec.declare("w", 3, None, False, "int64", None, 0)


def make(spec: TableSpec, partition: int) -> DenseTable:
    return DenseTable(spec, lambda weight, grad: weight + grad, 0, 1)


class Follower:
    """Remembers what it is passed."""

    def __init__(self) -> None:
        self.passed: list[Header] = []

    def forward(self, header: Header, *buffers: Any) -> None:
        self.passed.append(header)

    def restart(self) -> None:
        pass

    def close(self) -> None:
        pass


def primary(buffers: bool = False) -> Partition:
    partition = Partition(0, make, buffers)
    partition.primary = partition.member = True
    partition.declare(0, SPEC, lambda index: None)
    return partition


def push(partition: Partition, sequence: int, done: list[int], incarnation: int = 0, clock: int = 0) -> None:
    header = Header(Op.PUSH, sequence=sequence, keys=1, clock=clock)
    keys, gradient = np.array([1]), np.array([1])
    partition.push(0, (7, incarnation), header, keys, gradient, lambda index: done.append(sequence))


def weight(partition: Partition) -> int:
    return int(partition.shards[0].read(None, stable=False)[1])


def test_a_push_sent_again_is_done_once_and_acknowledged_again() -> None:
    partition, done = primary(), []
    for sequence in (1, 2, 1, 2, 3):
        push(partition, sequence, done)
    assert (weight(partition), done) == (3, [1, 2, 1, 2, 3])


def test_who_has_stepped_down_does_nothing_that_was_still_on_its_way() -> None:
    partition, done = primary(), list[int]()
    partition.step_down()
    with pytest.raises(ChannelClosed, match="another server answers for partition 0"):
        push(partition, 1, done)
    with pytest.raises(ChannelClosed, match="another server answers for partition 0"):
        partition.declare(1, SPEC, done.append)
    assert (weight(partition), done, list(partition.shards)) == (0, [], [0])


def test_what_was_left_out_of_a_push_is_counted_once_and_by_copies_too() -> None:
    partition, follower = primary(), Follower()
    partition.attach(follower, required=False)
    for _ in range(2):
        header = Header(Op.PUSH, sequence=1, keys=1)
        partition.push(0, (7, 0), header, np.array([1]), np.array([1]), lambda index: None, skipped=3)
    assert partition.shards[0].skipped == 3
    copy = Partition(0, make, False)
    copy.source = source = object()
    copy.follow_declaration(source, 0, SPEC, lambda index: None)
    left_out, push = follower.passed
    copy.follow(source, left_out, None, None, lambda index: None)
    copy.follow(source, push, np.array([1]), np.array([1]), lambda index: None)
    assert (copy.shards[0].skipped, copy.index) == (3, partition.index)


def test_numbers_wrap() -> None:
    partition, done = primary(), []
    partition._last[7] = (0, MASK - 1)
    for sequence in (MASK, 1, MASK, 1):
        push(partition, sequence, done)
    assert weight(partition) == 2


def test_it_counts_once_the_follower_has_it_or_is_gone() -> None:
    partition, done, follower = primary(), [], Follower()
    partition.attach(follower, required=True)
    push(partition, 1, done)
    push(partition, 2, done)
    assert done == []
    partition.confirm(partition.index - 1)
    assert done == [1]
    partition.attach(None, required=False)
    assert done == [1, 2]
    assert [header.sequence for header in follower.passed] == [1, 2]


def test_who_leaves_the_chain_confirms_nothing() -> None:
    partition, done = primary(), []
    partition.attach(Follower(), required=True)
    push(partition, 1, done)
    partition.clear()
    partition.attach(None, required=False)
    assert done == []


def test_a_dead_workers_unfinished_clock_is_dropped_and_its_late_pushes_with_it() -> None:
    partition, done = primary(buffers=True), []
    push(partition, 1, done, clock=0)
    push(partition, 2, done, clock=1)
    partition.renew(7, 1, 1)
    push(partition, 3, done, clock=1)  # still on its way when the process had died
    partition.apply_until(2)
    assert weight(partition) == 1
    push(partition, 1, done, incarnation=1, clock=2)
    partition.apply_until(3)
    assert weight(partition) == 2


def test_a_copy_is_the_whole_and_knows_what_was_done() -> None:
    first, done = primary(buffers=True), []
    push(first, 1, done)
    first.apply_until(1)
    push(first, 2, done, clock=1)
    second = Partition(0, make, True)
    second.source = source = object()
    with first.lock:
        described, arrays = first.snapshot()
    confirmed: list[int] = []
    second.load(source, described, arrays, confirmed.append)
    assert confirmed == [first.index]
    with pytest.raises(ChannelClosed, match="told what to do by another server"):
        second.follow(object(), Header(Op.APPLY, clock=1), None, None, confirmed.append)
    second.primary = True
    push(second, 2, done, clock=1)  # sent again to the new primary
    for partition in (first, second):
        partition.apply_until(2)
        assert weight(partition) == 2


def test_a_copy_is_not_restored_from_a_checkpoint() -> None:
    first, restored = primary(), []
    second = Partition(0, make, False, 0, lambda shard, partition: restored.append(shard.spec.name))
    second.source = source = object()
    with first.lock:
        described, arrays = first.snapshot()
    second.load(source, described, arrays, lambda index: None)
    assert (second.settled, restored) == ({0}, [])
    second.primary = True
    second.declare(1, TableSpec.declare("v", 3, None, False, "int64", None, 0), lambda index: None)
    assert (second.settled, restored) == ({0, 1}, ["v"])


def test_a_table_is_settled_once_the_follower_has_it() -> None:
    partition = Partition(0, make, False)
    partition.primary = True
    partition.attach(Follower(), required=True)
    partition.declare(0, SPEC, lambda index: None)
    assert partition.settled == set()
    partition.confirm(partition.index)
    assert partition.settled == {0}


def test_a_link_that_is_replaced_while_it_catches_up_makes_nobody_wait() -> None:
    partition, done = primary(), []
    link = Successor(partition, Address("127.0.0.1", 1), b"", lambda: None)  # nobody listens there
    partition.attach(link, required=False)
    partition.attach(None, required=False)
    with pytest.raises(ChannelClosed, match="has changed"):
        link._catch_up(None)  # type: ignore[arg-type]
    push(partition, 1, done)
    assert (partition.required, done) == (False, [1])


def test_pushes_wait_for_a_follower_from_when_it_has_its_copy() -> None:
    partition, done, told = primary(), [], []
    link = Successor(partition, Address("127.0.0.1", 1), b"", lambda: told.append(partition.index))
    partition.attach(link, required=False)
    copy = partition.index

    class Answers:
        """The follower's confirmations, with what happens before each."""

        def __init__(self) -> None:
            self.next = self.answers()

        def receive(self) -> Header:
            return Header(Op.ACK, key_set=next(self.next))

        def close(self) -> None:
            pass

        def answers(self) -> Iterator[int]:
            push(partition, 1, done)
            yield copy - 1
            push(partition, 2, done)
            assert (partition.required, done) == (False, [1, 2])  # it still takes the copy in
            yield copy
            assert partition.required
            push(partition, 3, done)
            yield copy + 1
            assert (told, done) == ([], [1, 2])  # it has not all that did not wait for it
            yield copy + 2
            assert (told, done) == ([copy + 3], [1, 2])
            yield copy + 3
            assert done == [1, 2, 3]
            raise ChannelClosed("it is gone")

    link._channel = channel = Answers()  # type: ignore[assignment]
    with pytest.raises(ChannelClosed, match="it is gone"):
        link._hear(channel, copy)  # type: ignore[arg-type]
    assert told == [copy + 3]
    partition.attach(None, required=False)


def test_a_server_that_is_not_in_the_chain_follows_nobody() -> None:
    with pytest.raises(ChannelClosed, match="does not follow"):
        follow(None, Partition(0, make, False))  # type: ignore[arg-type]
