"""One server by itself: strangers do it no harm, and it never outlives its driver."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from paibook.comms import wire
from paibook.comms.shared_channel import take_up
from paibook.comms.wire import ChannelClosed, HandshakeError, Header
from paibook.errors import RunError
from paibook.program import Program
from paibook.runtimes.ps import service as service_module
from paibook.runtimes.ps.admission import ByCount
from paibook.runtimes.ps.client import ParameterServer
from paibook.runtimes.ps.consistency import Consistency
from paibook.runtimes.ps.control import Control
from paibook.runtimes.ps.coordinator import Coordinator
from paibook.runtimes.ps.messages import CoordinatorJob, Op, Scene, ServerJob, WorkerJob
from paibook.runtimes.ps.optimizers import SGD, Adagrad, Adam
from paibook.runtimes.ps.server import Server
from paibook.runtimes.ps.shards import TableSpec

TOKEN = wire.new_token()


class Serving:
    """A coordinator and a server, each in a thread."""

    def __init__(self, tables: tuple[TableSpec, ...] = ()) -> None:
        self.scene = Scene("r", Program(""), {}, {}, 1, 1, Consistency("asp"), TOKEN)
        self.listeners = [wire.listen(), wire.listen()]
        self.coordinator_address, self.address = (listener.getsockname() for listener in self.listeners)
        self.coordinator = Coordinator(CoordinatorJob(self.scene), self.listeners[0])
        known = tuple(spec.to_wire() for spec in tables)
        job = ServerJob(self.scene, 0, self.coordinator_address, tables=known)
        self.server = Server(job, self.listeners[1], None)
        self.error: BaseException | None = None
        self.threads = [threading.Thread(target=self._run, args=(s,)) for s in (self.coordinator, self.server)]
        for thread in self.threads:
            thread.start()

    def _run(self, service: Coordinator | Server) -> None:
        try:
            service.run()
        except RunError as error:
            self.error = error

    def ended(self) -> bool:
        self.threads[1].join(10)
        return not self.threads[1].is_alive()

    def close(self) -> None:
        self.server.end()
        self.coordinator.end()
        for thread in self.threads:
            thread.join(10)
        for listener in self.listeners:
            listener.close()

    def worker(self) -> ParameterServer:
        return ParameterServer(WorkerJob(self.scene, self.coordinator_address), 0)

    def driver(self) -> Control:
        control = Control(self.coordinator_address, TOKEN)
        end = time.monotonic() + 10
        while control.status()["view"] is None and time.monotonic() < end:
            time.sleep(0.01)
        return control

    def works(self) -> bool:
        ps = self.worker()
        table = ps.table("w", shape=2, optimizer=SGD(1.0))
        before = table.pull()
        table.wait(table.push([1.0, 2.0]))
        weights = table.pull()
        table.wait(table.push([-1.0, -2.0]))
        ps.close()
        return bool(np.array_equal(weights - before, [-1, -2]))


@pytest.fixture
def serving() -> Iterator[Serving]:
    serving = Serving()
    yield serving
    serving.close()
    assert not any(thread.is_alive() for thread in serving.threads)


def test_a_server_gets_ready_for_tables_that_it_does_not_have_yet() -> None:
    declared = [
        TableSpec.declare("w", (5, 3), None, False, "float32", SGD(0.1), 1.0),
        TableSpec.declare("h", 4, None, False, "float16", Adam(0.1), 0.0),
        TableSpec.declare("e", None, 2, True, "float64", Adagrad(0.1), 0.0, ByCount(3), 5, 10),
        TableSpec.declare("own", 4, None, False, "int64", None, 0),
    ]
    serving = Serving(tuple(declared))
    try:
        assert serving.works()
        assert [shard.spec.name for shard in serving.server.partitions[0].shards.values()] == ["w"]
    finally:
        serving.close()
    assert serving.error is None


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
    control = serving.driver()
    assert serving.works()
    worker = take_up(wire.connect(serving.address, TOKEN))
    control.close()
    assert serving.ended()
    serving.threads[0].join(10)  # either notices first, and the other ends with it
    assert isinstance(serving.error, RunError)
    assert "notebook's side" in str(serving.error)
    with pytest.raises(ChannelClosed):
        worker.receive()


def test_it_ends_in_order_when_told(serving: Serving) -> None:
    control = serving.driver()
    assert serving.works()
    model = control.fetch()
    size, tables = model.size, model.tables
    assert size == 8
    assert tables is not None
    assert tables["w"].tolist() == [0, 0]
    control.shutdown()
    assert serving.ended()
    assert serving.error is None


def test_it_does_not_wait_for_a_driver_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "DRIVER_SECONDS", 0.1)
    serving = Serving()
    assert serving.ended()
    serving.close()
    assert "no driver came" in str(serving.error)


def test_many_unawaited_pushes_do_not_block(serving: Serving) -> None:
    ps = serving.worker()
    table = ps.table("w", shape=2, dtype="float64", optimizer=SGD(1.0))
    for _ in range(3000):
        ticket = table.push([1.0, 0.0])
    table.wait(ticket)
    table.wait(ticket)
    assert table.pull().tolist() == [-3000, 0]
    assert table.pull([]).shape == (0,)
    ps.close()


def test_a_question_that_cannot_be_answered_ends_only_the_observer(
    serving: Serving, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving.server, "described", lambda: 1 / 0)
    observer = take_up(wire.connect(serving.address, TOKEN))
    observer.send_json(Header(Op.JOIN), {"role": "observer"})
    observer.send(Header(Op.STATUS))
    with caplog.at_level(logging.WARNING), pytest.raises(ChannelClosed):
        observer.receive()
    assert "server rank 0 could not say how it stands: division by zero" in caplog.text
    assert serving.works()


def test_an_operation_that_is_not_one_ends_the_run_with_a_reason(serving: Serving) -> None:
    channel = take_up(wire.connect(serving.address, TOKEN))
    channel.send(Header(Op.JOIN), b'{"role": "worker", "rank": 0, "incarnation": 0}')
    channel.receive_json(channel.receive())
    channel.send(Header(99))
    assert serving.ended()
    assert "operation 99" in str(serving.error)
