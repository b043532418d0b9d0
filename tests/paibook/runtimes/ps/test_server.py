"""One server by itself: strangers do it no harm, and it never outlives its driver."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from paibook.comms import wire
from paibook.comms.shared_channel import take_up
from paibook.comms.wire import ChannelClosed, HandshakeError, Header
from paibook.errors import RunError
from paibook.program import Program
from paibook.runtimes.ps import server as server_module
from paibook.runtimes.ps.client import ParameterServer
from paibook.runtimes.ps.consistency import Consistency
from paibook.runtimes.ps.control import Control
from paibook.runtimes.ps.messages import Op, Scene, ServerJob
from paibook.runtimes.ps.optimizers import SGD
from paibook.runtimes.ps.server import Server

TOKEN = wire.new_token()


class Serving:
    """A server in a thread."""

    def __init__(self) -> None:
        scene = Scene("r", Program(""), {}, {}, 1, 1, Consistency("asp"), TOKEN)
        self.listener = wire.listen()
        self.address = self.listener.getsockname()
        self.server = Server(ServerJob(scene, 0), self.listener, None)
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.server.run()
        except RunError as error:
            self.error = error

    def works(self) -> bool:
        ps = ParameterServer.connect(0, 1, [self.address], TOKEN)
        table = ps.table("w", shape=2, optimizer=SGD(1.0))
        table.wait(table.push([1.0, 2.0]))
        weights = table.pull()
        table.wait(table.push(-weights * 0 - [1.0, 2.0]))
        ps.close()
        return bool(np.array_equal(weights, [-1, -2]))


@pytest.fixture
def serving() -> Iterator[Serving]:
    serving = Serving()
    yield serving
    serving.server.end()
    serving.thread.join(10)
    serving.listener.close()
    assert not serving.thread.is_alive()


def test_strangers_are_dropped_and_logged(serving: Serving, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        with pytest.raises((HandshakeError, ChannelClosed)):
            wire.connect(serving.address, b"wrong" * 8)
        with socket.create_connection(serving.address) as stranger:
            stranger.sendall(b"\x80\x04garbage" * 100)
            with contextlib.suppress(ConnectionResetError):  # closed with our garbage unread
                while stranger.recv(4096):
                    pass
        socket.create_connection(serving.address).close()
        assert serving.works()
    assert any("dropped a connection from 127.0.0.1" in record.message for record in caplog.records)
    assert TOKEN.hex() not in caplog.text


def test_it_ends_when_its_driver_is_gone_and_frees_the_workers(serving: Serving) -> None:
    control = Control((serving.address,), TOKEN)
    assert serving.works()
    worker = take_up(wire.connect(serving.address, TOKEN))
    control.close()
    serving.thread.join(10)
    assert isinstance(serving.error, RunError)
    assert "notebook's side" in str(serving.error)
    with pytest.raises(ChannelClosed):
        worker.receive()


def test_it_ends_in_order_when_told(serving: Serving) -> None:
    control = Control((serving.address,), TOKEN)
    assert serving.works()
    size, tables = control.fetch()
    assert size == 8
    assert tables is not None
    assert tables["w"].tolist() == [0, 0]
    control.shutdown()
    serving.thread.join(10)
    assert serving.error is None


def test_it_does_not_wait_for_a_driver_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "DRIVER_SECONDS", 0.1)
    serving = Serving()
    serving.thread.join(10)
    serving.listener.close()
    assert "no driver came" in str(serving.error)


def test_many_unawaited_pushes_do_not_block(serving: Serving) -> None:
    ps = ParameterServer.connect(0, 1, [serving.address], TOKEN)
    table = ps.table("w", shape=2, dtype="float64", optimizer=SGD(1.0))
    for _ in range(3000):
        ticket = table.push([1.0, 0.0])
    table.wait(ticket)
    table.wait(ticket)
    assert table.pull().tolist() == [-3000, 0]
    assert table.pull([]).shape == (0,)
    ps.close()


def test_an_operation_that_is_not_one_ends_the_run_with_a_reason(serving: Serving) -> None:
    channel = take_up(wire.connect(serving.address, TOKEN))
    channel.send(Header(Op.JOIN), b'{"role": "worker", "rank": 0}')
    channel.receive()
    channel.send(Header(99))
    serving.thread.join(10)
    assert "operation 99" in str(serving.error)
