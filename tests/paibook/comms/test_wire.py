"""The wire protocol, over real sockets and shared memory: frames, authentication, strangers and garbage."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from paibook.comms import shared_channel, wire
from paibook.comms.segment import supported
from paibook.comms.tls import RunCertificate, TlsStream
from paibook.comms.wire import Channel, ChannelClosed, HandshakeError, Header
from paibook.errors import RunError

TOKEN = b"t" * 32


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with wire.listen() as sock:
        yield sock


def accepting(pool: ThreadPoolExecutor, listener: socket.socket, timeout: float = 5.0) -> Future[Channel]:
    return pool.submit(lambda: wire.accept(listener.accept()[0], TOKEN, timeout))


@pytest.fixture(params=["socket", "TLS", "shared memory", "shared memory after TLS"])
def pair(
    request: pytest.FixtureRequest, pool: ThreadPoolExecutor, listener: socket.socket
) -> Iterator[tuple[Channel, Channel]]:
    security = RunCertificate.new() if "TLS" in request.param else None
    server = pool.submit(lambda: wire.accept(listener.accept()[0], TOKEN, security=security))
    client = wire.connect(listener.getsockname(), TOKEN, security=security)
    assert isinstance(client.stream, TlsStream) == (security is not None)
    if "shared memory" in request.param:
        if not supported():
            pytest.skip("this machine's processes cannot share memory this way")
        server = pool.submit(shared_channel.offer, server.result(5))
        client = shared_channel.take_up(client)
        assert isinstance(client.stream, shared_channel.SharedStream)
    yield client, server.result(5)
    client.close()
    server.result().close()


def test_a_header_is_32_bytes_and_comes_back() -> None:
    header = Header(7, 3, 65535, 2**32 - 1, 2**32 - 1, 2**32 - 1, 2**64 - 1, 2**40)
    assert len(header.pack()) == 32
    assert Header.unpack(header.pack()) == header


def test_arrays_travel_unchanged_and_are_large(pair: tuple[Channel, Channel], pool: ThreadPoolExecutor) -> None:
    client, server = pair
    keys = np.arange(1000, dtype=np.int64)
    rows = np.random.default_rng(0).normal(size=(1000, 700))  # far above the socket's buffers
    sent = pool.submit(client.send, Header(5, table=2, sequence=9, keys=len(keys)), keys, rows)
    header = server.receive()
    assert header == Header(5, table=2, sequence=9, keys=1000, length=keys.nbytes + rows.nbytes)
    assert np.array_equal(server.receive_array(1000, np.int64), keys)
    assert np.array_equal(server.receive_array(rows.shape, np.float64), rows)
    sent.result(5)


def test_many_buffers_empty_ones_and_json(pair: tuple[Channel, Channel]) -> None:
    client, server = pair
    client.send(Header(1), *[np.full(3, i, np.int32) for i in range(50)], np.empty(0), b"")
    header = server.receive()
    assert header.length == 600
    assert server.receive_array((50, 3), np.int32)[:, 0].tolist() == list(range(50))
    server.send_json(Header(2), {"name": "w", "shape": [2]})
    assert client.receive_json(client.receive()) == {"name": "w", "shape": [2]}
    client.send(Header(3), b"0123456789")
    client.send(Header(4))
    server.skip(server.receive().length)
    assert server.receive().op == 4


def test_a_payload_that_is_no_json_is_an_error_of_ours(pair: tuple[Channel, Channel]) -> None:
    client, server = pair
    client.send(Header(1), b"\xff{")
    with pytest.raises(RunError, match="not"):
        server.receive_json(server.receive())
    with pytest.raises(RunError, match="above the limit"):
        server.receive_json(Header(1, length=wire.MAX_JSON + 1))


def test_closing_frees_a_blocked_reader_on_both_sides(pair: tuple[Channel, Channel], pool: ThreadPoolExecutor) -> None:
    client, server = pair
    blocked = [pool.submit(client.receive), pool.submit(server.receive)]
    client.close()
    client.close()
    for reader in blocked:
        with pytest.raises(ChannelClosed):
            reader.result(5)
    with pytest.raises(ChannelClosed):
        client.send(Header(1))


def test_a_wrong_token_is_refused_on_both_sides(pool: ThreadPoolExecutor, listener: socket.socket) -> None:
    server = accepting(pool, listener)
    with pytest.raises(ChannelClosed, match="token"):
        wire.connect(listener.getsockname(), b"x" * 32)
    with pytest.raises(HandshakeError, match="token"):
        server.result(5)


def test_a_server_that_does_not_hold_the_token_is_noticed(pool: ThreadPoolExecutor, listener: socket.socket) -> None:
    def impostor() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.sendall(wire._GREETING.pack(wire._MAGIC, wire.VERSION, b"n" * 32))
            # Reflecting the client's own proof back must not help.
            data = sock.recv(4096)
            sock.sendall(data[-32:])

    done = pool.submit(impostor)
    with pytest.raises(HandshakeError, match="does not hold this run's token"):
        wire.connect(listener.getsockname(), TOKEN)
    done.result(5)


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 4, b"\0" * 500])
def test_garbage_is_refused(pool: ThreadPoolExecutor, listener: socket.socket, garbage: bytes) -> None:
    server = accepting(pool, listener)
    with socket.create_connection(listener.getsockname()) as stranger:
        stranger.sendall(garbage)
        with pytest.raises(HandshakeError, match="does not speak"):
            server.result(5)


def test_another_version_is_named(pool: ThreadPoolExecutor, listener: socket.socket) -> None:
    server = accepting(pool, listener)
    with socket.create_connection(listener.getsockname()) as older:
        older.sendall(wire._GREETING.pack(wire._MAGIC, 99, b"n" * 32) + b"p" * 32)
        with pytest.raises(HandshakeError, match=r"version 99 .* version 1; install the same paibook"):
            server.result(5)


def test_a_silent_or_dripping_stranger_is_dropped_in_time(pool: ThreadPoolExecutor, listener: socket.socket) -> None:
    server = accepting(pool, listener, timeout=0.5)
    stop = threading.Event()
    with socket.create_connection(listener.getsockname()) as stranger:

        def drip() -> None:
            while not stop.wait(0.05):
                try:
                    stranger.send(wire._MAGIC[:1])
                except OSError:
                    return

        dripping = pool.submit(drip)
        began = time.monotonic()
        with pytest.raises(HandshakeError):
            server.result(10)
        assert time.monotonic() - began < 8
        stop.set()
        dripping.result(5)


def test_nobody_there_names_the_address(listener: socket.socket) -> None:
    host, port = listener.getsockname()
    listener.close()
    with pytest.raises(ChannelClosed, match=f"{host}:{port}"):
        wire.connect((host, port), TOKEN, timeout=2)
