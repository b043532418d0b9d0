"""Waiting for one of several channels: over sockets and over shared memory, with frames that were half read before."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from paibook.comms.ready import ready
from paibook.comms.segment import supported
from paibook.comms.shared_channel import SharedStream, offer, take_up
from paibook.comms.wire import Channel, ChannelClosed, Header, SocketStream, listen

KINDS = ["socket", pytest.param("shared", marks=pytest.mark.skipif(not supported(), reason="no shared memory here"))]


@pytest.fixture(params=KINDS)
def pairs(request: pytest.FixtureRequest) -> Iterator[list[tuple[Channel, Channel]]]:
    made = []
    with listen() as listener, ThreadPoolExecutor(1) as pool:
        for _ in range(3):
            ours = Channel(SocketStream(socket.create_connection(listener.getsockname())))
            theirs = Channel(SocketStream(listener.accept()[0]))
            if request.param == "shared":
                offered = pool.submit(offer, theirs)
                ours, theirs = take_up(ours), offered.result(5)
                assert isinstance(ours.stream, SharedStream)
            made.append((ours, theirs))
    yield made
    for pair in made:
        for channel in pair:
            channel.close()


def waits(channels: list[Channel], seconds: float = 0.15) -> bool:
    """Whether ``ready`` does not come back; whoever calls this must send something afterwards."""
    thread = threading.Thread(target=ready, args=(channels,), daemon=True)
    thread.start()
    thread.join(seconds)
    return thread.is_alive()


def test_it_names_those_that_have_something(pairs: list[tuple[Channel, Channel]]) -> None:
    ours = [pair[0] for pair in pairs]
    pairs[1][1].send(Header(3), np.arange(4))
    assert ready(ours) == [1]
    assert ours[1].receive().op == 3
    assert ready(ours) == [1]  # the payload
    ours[1].receive_array(4, np.int64)
    assert waits(ours)
    pairs[2][1].send(Header(4))
    pairs[0][1].send(Header(5))
    deadline = time.monotonic() + 10
    while set(ready(ours)) != {0, 2}:
        assert time.monotonic() < deadline
    assert ours[2].receive().op == 4
    assert ready(ours) == [0]


def test_it_wakes(pairs: list[tuple[Channel, Channel]]) -> None:
    ours = [pair[0] for pair in pairs]
    for turn in range(200):
        which = turn % 3
        timer = threading.Timer(0.001 if turn % 2 else 0, pairs[which][1].send, (Header(turn),))
        timer.start()
        assert ready(ours) == [which]
        assert ours[which].receive().op == turn
        timer.join()


def test_an_end_is_something(pairs: list[tuple[Channel, Channel]]) -> None:
    ours = [pair[0] for pair in pairs]
    pairs[1][1].send(Header(7))
    pairs[1][1].close()
    assert ready(ours) == [1]
    assert ours[1].receive().op == 7
    assert ready(ours) == [1]
    with pytest.raises(ChannelClosed):
        ours[1].receive()
    ours[0].close()
    assert 0 in ready([ours[0], ours[2]])
