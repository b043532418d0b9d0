"""The coordinator may end the run while any peer waits for an answer; each takes that for the end, and no more."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from paibook.comms.shared_channel import offer, take_up
from paibook.comms.wire import Channel, ChannelClosed, Header, SocketStream, accept, connect, listen, new_token
from paibook.runtimes.ps.control import Control
from paibook.runtimes.ps.coordinator_link import CoordinatorLink
from paibook.runtimes.ps.ending import Over, say_over
from paibook.runtimes.ps.messages import Op
from paibook.runtimes.ps.observer import Observer
from paibook.runtimes.ps.service import LockedChannel

TOKEN = new_token()


class Ending:
    """A coordinator that answers who joins that the run is over."""

    def __init__(self, listener: socket.socket) -> None:
        self.address: tuple[str, int] = listener.getsockname()
        self.joined: list[str] = []
        self._listener = listener
        self._channels: list[Channel] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            with contextlib.suppress(ChannelClosed):
                channel = offer(accept(self._listener.accept()[0], TOKEN))
                self._channels.append(channel)
                role = channel.receive_json(channel.receive())["role"]
                if role == "end":
                    return
                self.joined.append(role)
                if role == "driver":
                    channel.send(Header(Op.OK))
                say_over(channel)

    def close(self) -> None:
        with contextlib.closing(take_up(connect(self.address, TOKEN))) as channel:
            channel.send_json(Header(Op.JOIN), {"role": "end"})
            self._thread.join(10)
        for channel in self._channels:
            channel.close()


@pytest.fixture
def ending() -> Iterator[Ending]:
    with listen() as listener:
        ending = Ending(listener)
        yield ending
        ending.close()


def test_a_driver_takes_it_for_a_coordinator_that_does_not_answer(ending: Ending) -> None:
    control = Control(ending.address, TOKEN)
    with pytest.raises(ChannelClosed, match="the run is over"):
        control.status()
    control.close()


def test_a_worker_that_joins_does_not_try_again(ending: Ending) -> None:
    with pytest.raises(Over):
        CoordinatorLink(ending.address, TOKEN, 0, 0)
    assert ending.joined == ["worker"]


def test_an_observer_ends_in_silence(ending: Ending, monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    observer = Observer(ending.address, TOKEN, lambda picture: None)
    end = time.monotonic() + 10
    while not ending.joined and time.monotonic() < end:
        time.sleep(0.01)
    assert observer.finish() is None
    observer.close()
    assert ending.joined
    assert not raised


def test_frames_of_two_threads_do_not_mix() -> None:
    with listen() as listener:
        ours = LockedChannel(SocketStream(socket.create_connection(listener.getsockname())))
        theirs = Channel(SocketStream(listener.accept()[0]))
    with contextlib.closing(ours), contextlib.closing(theirs), ThreadPoolExecutor(2) as pool:
        sent = [pool.submit(_send, ours, number) for number in (1, 2)]
        for _ in range(40):
            header = theirs.receive()
            assert (theirs.receive_array(header.length, np.uint8) == header.op).all()
        assert [done.result(10) for done in sent] == [None, None]


def _send(channel: Channel, number: int) -> None:
    for _ in range(20):
        channel.send(Header(number), np.full(1 << 20, number, np.uint8))
