"""Channels inside TLS: full in both directions at once, and closed to whoever lacks the run's certificate."""

from __future__ import annotations

import contextlib
import pickle
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from paibook.comms import wire
from paibook.comms.tls import RunCertificate
from paibook.comms.wire import Channel, ChannelClosed, HandshakeError, Header

TOKEN = b"t" * 32
SECONDS = 0.5  # for those who wait for each other


@pytest.fixture(scope="module")
def certificate() -> RunCertificate:
    return RunCertificate.new()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with wire.listen() as sock:
        yield sock


def accepting(
    pool: ThreadPoolExecutor, listener: socket.socket, certificate: RunCertificate | None, timeout: float = 5.0
) -> Future[Channel]:
    return pool.submit(lambda: wire.accept(listener.accept()[0], TOKEN, timeout, certificate))


@pytest.fixture
def pair(
    pool: ThreadPoolExecutor, listener: socket.socket, certificate: RunCertificate
) -> Iterator[tuple[Channel, Channel]]:
    server = accepting(pool, listener, certificate)
    client = wire.connect(listener.getsockname(), TOKEN, security=certificate)
    yield client, server.result(5)
    client.close()
    server.result().close()


def test_both_sides_send_and_receive_at_once(pair: tuple[Channel, Channel], pool: ThreadPoolExecutor) -> None:
    arrays = [np.random.default_rng(seed).integers(0, 256, 5_000_003, np.uint8) for seed in range(2)]
    sending = [pool.submit(channel.send, Header(1), array) for channel, array in zip(pair, arrays, strict=True)]
    receiving = []
    for channel in pair:

        def receive(channel: Channel = channel) -> np.ndarray:
            return channel.receive_array(channel.receive().length, np.uint8)

        receiving.append(pool.submit(receive))
    assert np.array_equal(receiving[0].result(30), arrays[1])
    assert np.array_equal(receiving[1].result(30), arrays[0])
    for sent in sending:
        sent.result(5)


def test_nothing_readable_is_on_the_wire(
    pool: ThreadPoolExecutor, listener: socket.socket, certificate: RunCertificate
) -> None:
    """Through a relay that writes down what passes."""
    seen = bytearray()
    server = accepting(pool, listener, certificate)
    with wire.listen() as relay:

        def pump(source: socket.socket, target: socket.socket) -> None:
            while data := source.recv(1 << 16):
                seen.extend(data)
                target.sendall(data)
            with contextlib.suppress(OSError):  # it has ended by itself
                target.shutdown(socket.SHUT_WR)

        def relay_all() -> None:
            with relay.accept()[0] as near, socket.create_connection(listener.getsockname()) as far:
                back = threading.Thread(target=pump, args=(far, near))
                back.start()
                pump(near, far)
                back.join()

        relaying = pool.submit(relay_all)
        client = wire.connect(relay.getsockname(), TOKEN, security=certificate)
        client.send(Header(1), b"a gradient nobody else may read" * 100)
        channel = server.result(5)
        assert channel.receive_array(channel.receive().length, np.uint8).tobytes().startswith(b"a gradient")
        client.close()
        with pytest.raises(ChannelClosed):
            channel.receive()
        channel.close()
        relaying.result(10)
    assert len(seen) > 3100
    assert b"gradient" not in seen
    assert wire._MAGIC not in seen


def test_a_stranger_without_the_certificate_is_dropped(
    pool: ThreadPoolExecutor, listener: socket.socket, certificate: RunCertificate
) -> None:
    server = accepting(pool, listener, certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(listener.getsockname()) as sock, context.wrap_socket(sock) as stranger:
        with pytest.raises(HandshakeError, match=r"does not hold this run's certificate: PEER_DID_NOT_RETURN"):
            server.result(5)
        with pytest.raises(OSError, match=r"CERTIFICATE_REQUIRED|reset"):
            stranger.recv(100)


def test_another_runs_certificate_is_refused_on_both_sides(
    pool: ThreadPoolExecutor, listener: socket.socket, certificate: RunCertificate
) -> None:
    server = accepting(pool, listener, certificate)
    with pytest.raises(HandshakeError, match="does not hold this run's certificate"):
        wire.connect(listener.getsockname(), TOKEN, security=RunCertificate.new())
    with pytest.raises((HandshakeError, ChannelClosed)):
        server.result(5)


def test_the_token_is_needed_inside_too(
    pool: ThreadPoolExecutor, listener: socket.socket, certificate: RunCertificate
) -> None:
    server = accepting(pool, listener, certificate)
    with pytest.raises(ChannelClosed, match="token"):
        wire.connect(listener.getsockname(), b"x" * 32, security=certificate)
    with pytest.raises(HandshakeError, match="token"):
        server.result(5)


def test_an_open_side_and_an_encrypted_one_do_not_meet(
    pool: ThreadPoolExecutor, listener: socket.socket, certificate: RunCertificate
) -> None:
    server = accepting(pool, listener, None, SECONDS)
    with pytest.raises(HandshakeError, match="does not speak TLS"):
        wire.connect(listener.getsockname(), TOKEN, SECONDS, certificate)
    with pytest.raises((HandshakeError, ChannelClosed)):
        server.result(5)
    server = accepting(pool, listener, certificate, SECONDS)
    with pytest.raises((HandshakeError, ChannelClosed)):  # each waits for the other to begin
        wire.connect(listener.getsockname(), TOKEN, SECONDS)
    with pytest.raises((HandshakeError, ChannelClosed)):
        server.result(5)


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello" * 9, b""])
def test_garbage_and_silence_are_dropped(
    pool: ThreadPoolExecutor, listener: socket.socket, certificate: RunCertificate, garbage: bytes
) -> None:
    server = accepting(pool, listener, certificate, SECONDS)
    with socket.create_connection(listener.getsockname()) as stranger:
        stranger.sendall(garbage)
        with pytest.raises(HandshakeError):
            server.result(5)


def test_it_travels_with_a_job_but_not_into_text(certificate: RunCertificate) -> None:
    assert certificate._client.check_hostname is False  # there is a context now, which cannot be sent
    sent = pickle.loads(pickle.dumps(certificate))
    assert sent == certificate
    assert sent._server.minimum_version == ssl.TLSVersion.TLSv1_3
    assert "BEGIN" not in repr(certificate)
