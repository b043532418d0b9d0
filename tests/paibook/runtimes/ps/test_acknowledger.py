"""Acknowledgements: a worker that reads nothing holds up no other."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from paibook.comms.wire import ChannelClosed, Header
from paibook.runtimes.ps.acknowledger import Acknowledger
from paibook.runtimes.ps.consistency import Consistency
from tests.paibook.runtimes.ps.server_threads import serving


def test_they_are_sent_in_order_and_end_with_the_connection() -> None:
    sent: list[int] = []
    ended = threading.Event()

    def send(header: Header) -> None:
        if header.sequence == 3:
            ended.set()
            raise ChannelClosed("gone")
        sent.append(header.sequence)

    acknowledger = Acknowledger(send)
    for number in (1, 2, 3):
        acknowledger.tell(Header(13, sequence=number))
    assert ended.wait(10)
    acknowledger.close()
    assert sent == [1, 2]


def test_an_unread_prefetch_holds_up_no_other_workers_pushes() -> None:
    passed = threading.Event()

    def late(weight: Any, grad: Any) -> Any:  # on the follower of partition 0
        if weight.shape[-1:] == (3,):
            passed.wait(10)
        return weight + grad

    asp = Consistency("asp")
    with serving(asp, workers=2, servers=2, replicas=1, updates={1: late}) as threads, ThreadPoolExecutor(1) as pool:
        first, second = threads.connect(0), threads.connect(1)
        with contextlib.closing(first), contextlib.closing(second):
            large = first.table("large", shape=(100_000, 64))
            small, same = (ps.table("small", shape=(2, 3)) for ps in (first, second))
            threads.wait_for_copies()
            large.wait(large.push([0], np.ones((1, 64))))  # all is compiled from here on
            small.push([0], np.ones((1, 3)))
            ahead = large.prefetch()
            time.sleep(0.3)  # for its server to have filled the connection
            passed.set()  # now the first worker's push is confirmed
            pushed = pool.submit(lambda: same.wait(same.push([0], np.ones((1, 3)))))
            try:
                pushed.result(5)
            finally:
                assert ahead.result().shape == (100_000, 64)
            assert same.pull([0]).tolist() == [[2, 2, 2]]
