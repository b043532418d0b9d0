"""What is counted of the bytes that ranks move: by hand, and where several ranks do it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from paibook.comms.backends import BACKENDS
from paibook.comms.calls import CallLog, regularly
from paibook.comms.communicator import Communicator
from paibook.comms.operators import SUM
from paibook.comms.paths import THREADS, allreduce_paths
from paibook.comms.rendezvous import Meeting
from paibook.comms.shared_collectives import DIRECT_BYTES
from paibook.comms.shared_memory import SharedMemoryCommunicator
from paibook.comms.traffic import Traffic, bytes_of


def on_ranks(size: int, work: Any) -> list[Traffic]:
    """Run ``work`` on ranks that share memory, each a thread of its own; what they have counted."""
    meeting = Meeting.on_this_host()
    ranks = [SharedMemoryCommunicator(rank, size, meeting, "counted") for rank in range(size)]
    errors: list[BaseException] = []

    def run(comm: Communicator) -> None:
        try:
            work(comm)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(comm,)) for comm in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for comm in ranks:
        comm.abort()
    assert errors == []
    return [comm.transport.traffic for comm in ranks]


def test_a_small_all_reduce_is_written_once_and_read_from_all_others() -> None:
    counted = on_ranks(3, lambda comm: comm.Allreduce(np.ones(10, np.float32), np.empty(10, np.float32)))
    assert [(traffic.written, traffic.read) for traffic in counted] == [(40, 80)] * 3


def test_a_large_one_is_reduced_in_parts() -> None:
    array = np.ones(3 * DIRECT_BYTES // 4, np.float32)  # three times what goes directly
    counted = on_ranks(3, lambda comm: comm.Allreduce(array, np.empty_like(array)))
    assert [traffic.written for traffic in counted] == [array.nbytes] * 3
    # Two parts of a third to add up, and two sums of a third: four thirds in place of two wholes.
    assert all(abs(traffic.read - 4 * array.nbytes / 3) < 20 for traffic in counted)


def test_what_one_rank_writes_the_others_read() -> None:
    counted = on_ranks(2, lambda comm: comm.Bcast(np.zeros(100, np.uint8), root=1))
    assert [(traffic.written, traffic.read) for traffic in counted] == [(0, 100), (100, 0)]
    dealt = on_ranks(2, lambda comm: comm.Alltoall(np.zeros(8, np.uint8), np.zeros(8, np.uint8)))
    assert [(traffic.written, traffic.read) for traffic in dealt] == [(8, 8)] * 2


def test_messages_are_counted_by_rank_also_those_of_subgroups() -> None:
    def work(comm: Communicator) -> None:
        if comm.rank == 0:
            comm.Send(np.zeros(5, np.uint8), 2)
        elif comm.rank == 2:
            comm.Recv(np.zeros(5, np.uint8), 0)
        pair = comm.Split(comm.rank % 2)
        if comm.rank != 1:
            pair.Bcast(np.zeros(7, np.uint8))

    counted = on_ranks(3, work)
    assert counted[0].sent[2] == (2, 12)
    assert 1 not in counted[0].sent or counted[0].sent[1][1] > 0


def test_a_wait_is_seen_while_it_lasts_and_counted_when_it_ends() -> None:
    seen: list[int | None] = []

    def work(comm: Communicator) -> None:
        if comm.rank == 0:
            comm.recv(source=1)
            return
        traffic, thread = others[0].transport.traffic, waiting.wait(10) and ident[0]
        while traffic.awaited(thread) is None:
            pass
        seen.append(traffic.awaited(thread))
        comm.send("late", 0)

    meeting, waiting, ident = Meeting.on_this_host(), threading.Event(), [0]
    others = [SharedMemoryCommunicator(rank, 2, meeting, "late") for rank in range(2)]

    def receive() -> None:
        ident[0] = threading.get_ident()
        waiting.set()
        work(others[0])

    thread = threading.Thread(target=receive)
    thread.start()
    work(others[1])
    thread.join()
    traffic = others[0].transport.traffic
    for comm in others:
        comm.abort()
    assert seen == [1]
    assert traffic.waited > 0
    assert traffic.awaited(ident[0]) is None
    traffic.reset()
    assert traffic.waited == 0


def test_operations_are_counted_by_name_with_their_bytes() -> None:
    log = CallLog()
    log.reset(2)
    call = {
        name: log.logged(name, lambda: lambda *args, **options: None) for name in ("Allreduce", "allreduce", "send")
    }
    for size in (10, 10, 100):
        call["Allreduce"](np.ones(size, np.float32), np.ones(size, np.float32), SUM)
    call["allreduce"](1)
    call["send"]("x", 1)
    assert log.operations == {"send": (1, None), "Allreduce": (3, 480), "allreduce": (1, None)}
    log.reset(2)
    assert log.operations == {}


def test_looks_are_taken_while_the_block_runs() -> None:
    looked = threading.Event()
    with regularly(looked.set):
        assert looked.wait(10)


@pytest.mark.parametrize("backend", [*BACKENDS, THREADS])
def test_every_backend_says_its_ways(backend: str) -> None:
    paths = allreduce_paths(backend)
    assert [limit for limit, _ in paths if limit is None] == [None]
    assert paths[-1][0] is None
    assert all(words for _, words in paths)


def test_sizes_of_arrays() -> None:
    assert bytes_of(np.zeros(3, np.int64), None) == 24
