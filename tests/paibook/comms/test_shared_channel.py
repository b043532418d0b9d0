"""Channels through shared memory: against a queue of bytes, between processes that die, and where there is none."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from paibook.comms import shared_channel, wire
from paibook.comms.segment import supported
from paibook.comms.shared_channel import RING_BYTES, SharedStream, offer, take_up
from paibook.comms.wire import Channel, ChannelClosed, Header, SocketStream

pytestmark = pytest.mark.skipif(not supported(), reason="this machine's processes cannot share memory this way")
TOKEN = b"t" * 32

PEER = """
import sys
from paibook.comms import wire
from paibook.comms.shared_channel import SharedStream, take_up
channel = take_up(wire.connect(("127.0.0.1", int(sys.argv[1])), b"t" * 32))
assert isinstance(channel.stream, SharedStream)
while True:
    header = channel.receive()
    data = channel.receive_array(header.length, "uint8")
    channel.send(header, data[::-1].copy())
"""


@pytest.fixture
def sockets() -> Iterator[tuple[Channel, Channel]]:
    left, right = socket.socketpair()
    pair = Channel(_Plain(left)), Channel(_Plain(right))
    yield pair
    for channel in pair:
        channel.close()


class _Plain(SocketStream):
    """A stream of a socket pair, which is no TCP."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock


def both(pair: tuple[Channel, Channel]) -> tuple[Channel, Channel]:
    with ThreadPoolExecutor(1) as pool:
        offered = pool.submit(offer, pair[0])
        return take_up(pair[1]), offered.result(5)


@pytest.fixture
def peer() -> Iterator[tuple[Channel, subprocess.Popen[bytes]]]:
    with wire.listen() as listener:
        child = subprocess.Popen([sys.executable, "-c", PEER, str(listener.getsockname()[1])])
        channel = offer(wire.accept(listener.accept()[0], TOKEN))
    yield channel, child
    channel.close()
    child.kill()
    child.wait(10)


def test_two_threads_of_each_side_send_and_receive_at_once(sockets: tuple[Channel, Channel]) -> None:
    pair = both(sockets)
    frame = np.arange(RING_BYTES // 3, dtype=np.uint8)
    sums = []

    def send(channel: Channel) -> None:
        for number in range(30):
            channel.send(Header(1, sequence=number), frame)

    def receive(channel: Channel) -> None:
        for _ in range(30):
            header = channel.receive()
            sums.append((header.sequence, int(channel.receive_array(header.length, np.uint8).sum())))

    threads = [threading.Thread(target=act, args=(end,), daemon=True) for end in pair for act in (send, receive)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert sorted(sums) == sorted(2 * [(number, int(frame.sum())) for number in range(30)])


def test_a_thread_that_polls_takes_no_wake_up_from_one_that_sends(sockets: tuple[Channel, Channel]) -> None:
    left, right = both(sockets)
    stream, frame, over = left.stream, np.zeros(RING_BYTES, np.uint8), threading.Event()
    assert isinstance(stream, SharedStream)

    def poll() -> None:
        while not over.is_set():
            stream.after_poll()

    def read() -> None:
        for _ in range(200):
            right.receive_array(right.receive().length, np.uint8)

    def send() -> None:
        for _ in range(200):
            left.send(Header(1), frame)

    threads = [threading.Thread(target=act, daemon=True) for act in (poll, read, send)]
    for thread in threads:
        thread.start()
    threads[2].join(20)
    stuck = threads[2].is_alive()
    over.set()
    assert not stuck


def test_an_interrupt_before_sleeping_frees_the_other_thread(
    sockets: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = both(sockets)
    stream = left.stream
    assert isinstance(stream, SharedStream)

    class Interrupted(threading.Condition):
        def __exit__(self, *error: object) -> None:
            super().__exit__(*error)
            if stream._asleep:
                monkeypatch.undo()
                raise KeyboardInterrupt

    monkeypatch.setattr(stream, "_sleeping", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        left.receive()
    right.send(Header(7))
    assert left.receive().op == 7


def test_without_descriptors_the_socket_stays(
    sockets: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(name: str) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(shared_channel.os, "memfd_create", none_left)
    left, right = both(sockets)
    assert not isinstance(left.stream, SharedStream)
    left.send(Header(3))
    assert right.receive().op == 3


@pytest.mark.parametrize("seed", range(3))
def test_what_goes_in_comes_out(sockets: tuple[Channel, Channel], seed: int) -> None:
    client, server = both(sockets)
    random = np.random.default_rng(seed)
    sizes = [int(size) for size in 10 ** random.uniform(0, np.log10(3 * RING_BYTES), 60)]
    frames = [random.integers(0, 256, size, np.uint8) for size in sizes]

    def send() -> None:
        for number, frame in enumerate(frames):
            cut = int(random.integers(0, len(frame) + 1))
            client.send(Header(1, sequence=number), frame[:cut], frame[cut:])

    sender = threading.Thread(target=send)
    sender.start()
    for number, frame in enumerate(frames):
        header = server.receive()
        assert (header.sequence, header.length) == (number, len(frame))
        assert np.array_equal(server.receive_array(len(frame), np.uint8), frame)
    sender.join(10)


def test_two_processes(peer: tuple[Channel, subprocess.Popen[bytes]]) -> None:
    channel, _ = peer
    for size in (0, 1, 5000, RING_BYTES, RING_BYTES + 12345):
        data = np.arange(size, dtype=np.int64).astype(np.uint8)
        channel.send(Header(7), data)
        assert channel.receive() == Header(7, length=size)
        assert np.array_equal(channel.receive_array(size, np.uint8), data[::-1])


def test_a_killed_peer_is_noticed_by_one_that_waits(peer: tuple[Channel, subprocess.Popen[bytes]]) -> None:
    channel, child = peer
    threading.Timer(0.2, os.kill, (child.pid, signal.SIGKILL)).start()
    with pytest.raises(ChannelClosed):
        channel.receive()


def test_a_killed_peer_is_noticed_by_one_that_sends(peer: tuple[Channel, subprocess.Popen[bytes]]) -> None:
    channel, child = peer
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(ChannelClosed):
        channel.send(Header(1), np.zeros(3 * RING_BYTES, np.uint8))


def test_what_was_sent_before_the_end_still_arrives(sockets: tuple[Channel, Channel]) -> None:
    client, server = both(sockets)
    client.send(Header(1), b"last words")
    client.close()
    assert server.receive_array(server.receive().length, np.uint8).tobytes() == b"last words"
    with pytest.raises(ChannelClosed):
        server.receive()


def test_a_sender_that_waits_for_room_is_freed(sockets: tuple[Channel, Channel]) -> None:
    client, _server = both(sockets)
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(client.send, Header(1), np.zeros(2 * RING_BYTES, np.uint8))
        client.close()
        with pytest.raises(ChannelClosed):
            sending.result(5)


def test_the_memory_has_no_name_and_no_descriptor_is_left(sockets: tuple[Channel, Channel]) -> None:
    def memories() -> int:
        return sum("paibook-channel" in os.readlink(file.path) for file in os.scandir("/proc/self/fd"))

    gc.collect()  # channels of tests before
    before = memories()
    both(sockets)
    assert memories() == before


@pytest.mark.parametrize("there", [0, 1])
def test_without_shared_memory_the_socket_stays(
    sockets: tuple[Channel, Channel], there: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([bool(there), False])
    monkeypatch.setattr(shared_channel, "supported", lambda: next(answers))
    client, server = both(sockets)
    client.send(Header(3), b"still here")
    assert server.receive_array(server.receive().length, np.uint8).tobytes() == b"still here"
    assert not isinstance(client.stream, SharedStream)


def test_a_process_of_another_host_has_something_else_there() -> None:
    right = {"pid": os.getpid(), "descriptor": 0, "nonce": "00" * 16}
    assert shared_channel._opened(**right) is None  # standard input
    assert shared_channel._opened(**{**right, "pid": 1 << 30}) is None
    descriptor = os.memfd_create("another")
    try:
        os.ftruncate(descriptor, shared_channel._MEMORY_BYTES)
        assert shared_channel._opened(os.getpid(), descriptor, "11" * 16) is None
        assert shared_channel._opened(os.getpid(), descriptor, "00" * 16) is not None
    finally:
        os.close(descriptor)


def test_a_frame_at_once_needs_room(sockets: tuple[Channel, Channel]) -> None:
    ours, theirs = both(sockets)
    assert ours.send_at_once(Header(7))
    ours.send(Header(8), np.zeros(RING_BYTES - 2 * 32 - 31, np.uint8))
    assert not ours.send_at_once(Header(9))
    assert theirs.receive().op == 7
    assert ours.send_at_once(Header(9))
    header = theirs.receive()
    theirs.skip(header.length)
    assert theirs.receive().op == 9
    assert not sockets[0].send_at_once(Header(7))  # of a socket nobody knows


def test_who_waits_long_looks_on_for_less_long(sockets: tuple[Channel, Channel]) -> None:
    stream = both(sockets)[0].stream
    assert stream.yields_seconds == shared_channel.YIELD_SECONDS
    for _ in range(20):
        stream.waited(1.0)
    assert stream.yields_seconds == shared_channel.LEAST_SECONDS
    for _ in range(20):
        stream.waited(shared_channel.LEAST_SECONDS)
    assert stream.yields_seconds == shared_channel.YIELD_SECONDS
