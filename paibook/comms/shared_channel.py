"""A channel of two processes of one host through memory that they share, in place of the socket they met by.

Each direction is a ring with one writer and one reader (Lamport, "Proving the correctness of multiprocess programs",
1977): a count of bytes written, which only the writer changes, and one of bytes read, which only the reader changes.
Whoever waits looks again a few times, then sleeps on the socket, which from now on carries nothing but bytes that
wake, and tells when the peer has ended.

The memory has no name anywhere: the accepting side opens it and says where its own process has it; the other opens it
through ``/proc``. That fails on another host or in another container, and then the socket stays what it was.
"""

from __future__ import annotations

import mmap
import os
import secrets
import socket
import stat
import threading
import time

import numpy as np

from paibook.comms.segment import supported
from paibook.comms.wire import Channel, ChannelClosed, Header
from paibook.settings import settings

RING_BYTES = 1 << 22
CHUNK_BYTES = 1 << 18  # what the peer may begin to copy while this side copies on
SPINS = 50
YIELD_SECONDS = 0.0002  # for which it pays to look on, since to be woken takes a part of that
LEAST_SECONDS = 0.00001  # where waits have become longer, and others may want the core
SMALL_BYTES = 4096  # below, copying by memoryview is faster than by array

_LINE = 16  # words; counts lie two cache lines apart, since processors fetch pairs of lines
_NONCE = 2048  # where it lies, in bytes
_NONCE_BYTES = 16
_DATA = 4096
_SHARE = Header(0)
_MEMORY_BYTES = _DATA + 2 * RING_BYTES


def offer(channel: Channel) -> Channel:
    """The accepting side: go on through shared memory if the peer can.

    Returns:
        The channel to use from now on.

    Raises:
        ChannelClosed: The peer has ended.
    """
    if not _wanted():
        return _offer_nothing(channel)
    try:
        descriptor, memory = _memory()
    except OSError:  # no descriptors left, or no memory
        return _offer_nothing(channel)
    try:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        memory[_NONCE : _NONCE + _NONCE_BYTES] = nonce
        channel.send_json(_SHARE, {"pid": os.getpid(), "descriptor": descriptor, "nonce": nonce.hex()})
        accepted = channel.receive_json(channel.receive())
    finally:
        os.close(descriptor)
    return _shared(channel, memory, 0) if accepted else channel


def _offer_nothing(channel: Channel) -> Channel:
    channel.send_json(_SHARE, {})
    channel.receive_json(channel.receive())
    return channel


def _memory() -> tuple[int, mmap.mmap]:
    descriptor = os.memfd_create("paibook-channel")
    try:
        os.ftruncate(descriptor, _MEMORY_BYTES)
        return descriptor, mmap.mmap(descriptor, _MEMORY_BYTES)
    except BaseException:
        os.close(descriptor)
        raise


def take_up(channel: Channel) -> Channel:
    """The connecting side; see ``offer``."""
    offered = channel.receive_json(channel.receive())
    memory = _opened(**offered) if offered and _wanted() else None
    channel.send_json(_SHARE, memory is not None)
    return channel if memory is None else _shared(channel, memory, 1)


def shared_bytes(channel: Channel) -> int:
    """The memory that a channel shares with its peer; 0 where it goes through a socket."""
    return _MEMORY_BYTES if isinstance(channel.stream, SharedStream) else 0


def _wanted() -> bool:
    return supported() and settings().shared_memory


def _opened(pid: int, descriptor: int, nonce: str) -> mmap.mmap | None:
    """The peer's memory; None where this is another host, whose process of that number has something else there."""
    path = f"/proc/{pid}/fd/{descriptor}"
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode) or found.st_size != _MEMORY_BYTES:
            return None
        own = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        memory = mmap.mmap(own, _MEMORY_BYTES)
    except OSError:
        return None
    finally:
        os.close(own)
    return memory if memory[_NONCE : _NONCE + _NONCE_BYTES] == bytes.fromhex(nonce) else None


def _shared(channel: Channel, memory: mmap.mmap, side: int) -> Channel:
    sock = channel.stream.bare_socket()
    sock.settimeout(None)
    return Channel(SharedStream(memory, sock, side))


class SharedStream:
    """A stream through shared memory. One thread may send while another receives.

    Args:
        memory: Zeros but for the nonce; mapped by both sides.
        sock: The connection to the peer.
        side: 0 or 1; the peer has the other.
    """

    def __init__(self, memory: mmap.mmap, sock: socket.socket, side: int) -> None:
        self._words = memoryview(memory).cast("Q")
        whole, array = memoryview(memory), np.frombuffer(memory, np.uint8)
        self._out = _Ring(side)
        self._in = _Ring(1 - side)
        self._views = [whole[_DATA + n * RING_BYTES : _DATA + (n + 1) * RING_BYTES] for n in range(2)]
        self._arrays = [array[_DATA + n * RING_BYTES : _DATA + (n + 1) * RING_BYTES] for n in range(2)]
        self._socket = sock
        self._fence = threading.Lock()
        self._closed = False
        self._sleeping = threading.Condition()
        self._asleep = False
        self.yields_seconds = YIELD_SECONDS
        self._wakes = 0  # bytes that wake were taken from the socket this often

    def send_all(self, views: list[memoryview]) -> None:
        """See ``Stream``; that the peer has ended shows when the ring is full, or when an answer is waited for."""
        if self._closed:
            raise ChannelClosed("this side has ended the connection")
        ring, published = self._out, self._out.count
        for view in views:
            done, length = 0, len(view)
            while done < length:
                room = RING_BYTES - (ring.count - self._words[ring.read])
                if not room:
                    self._publish(ring.written, ring.count, ring.reader_sleeps)
                    published = ring.count
                    self._wait(ring.writer_sleeps, ring.read, ring.count - RING_BYTES)
                    continue
                start = ring.count % RING_BYTES
                size = min(length - done, room, RING_BYTES - start, CHUNK_BYTES)
                self._copy_in(view[done : done + size], start, ring.number)
                ring.count += size
                done += size
                if ring.count - published >= CHUNK_BYTES:
                    self._publish(ring.written, ring.count, ring.reader_sleeps)
                    published = ring.count
        self._publish(ring.written, ring.count, ring.reader_sleeps)

    def receive_into(self, view: memoryview) -> None:
        """See ``Stream``."""
        ring = self._in
        done, length = 0, len(view)
        while done < length:
            if self._closed:  # what the peer goes on sending is for another
                raise ChannelClosed("this side has ended the connection")
            ready = self._words[ring.written] - ring.count
            if not ready:
                self._wait(ring.reader_sleeps, ring.written, ring.count)
                continue
            start = ring.count % RING_BYTES
            size = min(length - done, ready, RING_BYTES - start, CHUNK_BYTES)
            self._copy_out(view[done : done + size], start, ring.number)
            ring.count += size
            done += size
            self._publish(ring.read, ring.count, ring.writer_sleeps)

    def takes(self, size: int) -> bool:
        """See ``Stream``."""
        return RING_BYTES - (self._out.count - self._words[self._out.read]) >= size

    def close(self) -> None:
        """See ``Stream``."""
        self._closed = True
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the peer, and a thread of this side
        except OSError:
            pass  # the other side was first
        self._socket.close()

    def waited(self, seconds: float) -> None:
        """See ``Stream``: where waits have become long, others may want the core that looking on takes."""
        if seconds < YIELD_SECONDS:
            self.yields_seconds = min(YIELD_SECONDS, 2 * self.yields_seconds)
        else:
            self.yields_seconds = max(LEAST_SECONDS, self.yields_seconds / 2)

    def at_hand(self) -> bool:
        """See ``Stream``."""
        return bool(self._words[self._in.written] != self._in.count)

    def before_poll(self) -> bool:
        """See ``Stream``."""
        self._words[self._in.reader_sleeps] = 1
        self._order()
        return self.at_hand()

    def after_poll(self) -> bool:
        """See ``Stream``; takes the bytes that wake out of the socket, unless the other thread is about to."""
        ended = False
        with self._sleeping:
            if not self._asleep:
                try:
                    ended = not self._socket.recv(64, socket.MSG_DONTWAIT)
                    self._wakes += 1  # what was sent to the other thread is taken: it must look, and not sleep
                except BlockingIOError:
                    pass
                except OSError:
                    ended = True
        return ended or self.at_hand()

    def fileno(self) -> int:
        """See ``Stream``."""
        return self._socket.fileno()

    def bare_socket(self) -> socket.socket:
        """See ``Stream``."""
        return self._socket

    def _copy_in(self, source: memoryview, start: int, number: int) -> None:
        size = len(source)
        if size < SMALL_BYTES:
            self._views[number][start : start + size] = source
        else:  # without the interpreter's lock
            self._arrays[number][start : start + size] = np.frombuffer(source, np.uint8)

    def _copy_out(self, target: memoryview, start: int, number: int) -> None:
        size = len(target)
        if size < SMALL_BYTES:
            target[:] = self._views[number][start : start + size]
        else:
            np.frombuffer(target, np.uint8)[:] = self._arrays[number][start : start + size]

    def _publish(self, word: int, count: int, sleeps: int) -> None:
        """Let the peer see a count, and wake it where it sleeps."""
        words = self._words
        words[word] = count
        self._order()
        if words[sleeps]:
            words[sleeps] = 0
            try:
                self._socket.send(b"\0")
            except OSError:
                pass  # it has ended; whoever waits for it is told

    def _wait(self, sleeps: int, word: int, count: int) -> None:
        """Wait until the peer has moved a count on from ``count``.

        Raises:
            ChannelClosed: It has ended.
        """
        words = self._words
        for _ in range(SPINS):
            if words[word] != count:
                return
        began = time.monotonic()
        end = began + self.yields_seconds
        while words[word] == count:
            if time.monotonic() >= end:
                self._wait_asleep(sleeps, word, count)
                break
            os.sched_yield()
        self.waited(time.monotonic() - began)

    def _wait_asleep(self, sleeps: int, word: int, count: int) -> None:
        words = self._words
        while True:
            wakes = self._wakes  # first: what is sent to this thread may be taken by the other
            words[sleeps] = 1
            self._order()
            if words[word] != count:
                words[sleeps] = 0
                return
            alive = self._sleep(wakes)
            if words[word] == count and not alive:
                raise ChannelClosed("the other side ended the connection")

    def _sleep(self, wakes: int) -> bool:
        """Sleep until woken, if nobody was since ``wakes``; False when the connection has ended.

        Of two threads, one sleeps on the socket and wakes the other.
        """
        alive = mine = False
        try:
            with self._sleeping:
                while self._asleep and self._wakes == wakes:
                    self._sleeping.wait()
                if self._wakes != wakes:
                    return True
                mine = True  # first: an interrupt may come between any two
                self._asleep = True
            alive = bool(self._socket.recv(64))
        except OSError:
            pass
        finally:
            if mine:
                self._woken()
        return alive

    def _woken(self) -> None:
        with self._sleeping:
            self._asleep = False
            self._wakes += 1
            self._sleeping.notify_all()

    def _order(self) -> None:
        # Taking a lock is a locked instruction, past which x86 moves no load before a store (Intel SDM 3A, 9.2.3.9).
        with self._fence:
            pass


class _Ring:
    """Where a direction's counts lie, in words, and how far this side has come."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.written, self.read, self.reader_sleeps, self.writer_sleeps = (
            _LINE * (4 * number + place) for place in range(4)
        )
        self.count = 0
