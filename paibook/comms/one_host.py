"""How the ranks of one host meet without a port, and learn that one of them is gone.

They meet at a Unix socket in a folder of mode 0700, which is removed as soon as all are connected. Rank 0 hands out a
memory file that has no name anywhere (memfd), so that nothing is left of it however the ranks end. The connections stay
open and carry nothing more: the kernel closes them when a process dies, also by ``kill -9``. Rank 0 watches all
others, and they watch rank 0.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from paibook.comms.communicator import CommunicatorError

POLL_SECONDS = 0.001
_NAME = "ranks"
_MESSAGE_BYTES = 1 << 16


class Link:
    """One rank's connections to the others of its host.

    Args:
        folder: Where they meet.
        rank, size: This rank's number, and how many there are.
        greeting: What the others are to know about this rank.
        memory_bytes: Size of the memory file.

    Attributes:
        descriptor: Of the memory file, which the caller closes.
        greetings: Every rank's.

    Raises:
        CommunicatorError: A rank left while they were connecting.
    """

    descriptor: int
    greetings: Sequence[Any]

    def __init__(self, folder: Path, rank: int, size: int, greeting: Any, memory_bytes: int) -> None:
        self._peers: dict[int, socket.socket] = {}
        _links.add(self)
        try:
            if rank == 0:
                self._gather(folder, size, greeting, memory_bytes)
            else:
                self._join(folder, rank, greeting)
        except BaseException:
            self.close()
            raise

    def watch(self, on_loss: Callable[[int], None]) -> None:
        """Call ``on_loss`` with the rank that is gone, from a thread of its own, once."""
        if self._peers:
            threading.Thread(target=_watch, args=(self._peers, on_loss), name="paibook-ranks", daemon=True).start()

    def close(self) -> None:
        """Leave; the others are told. Safe to repeat."""
        for peer in self._peers.values():
            try:
                peer.shutdown(socket.SHUT_RDWR)  # wakes the watching thread too
            except OSError:
                pass  # the other side was first

    def forget(self) -> None:
        """Drop a forked parent's connections, which would seem alive as long as the child is."""
        for peer in self._peers.values():
            peer.close()

    def _gather(self, folder: Path, size: int, greeting: Any, memory_bytes: int) -> None:
        folder.mkdir(mode=0o700)
        try:
            with socket.socket(socket.AF_UNIX) as listener:
                _at(folder, listener.bind)
                listener.listen(size)
                greetings = {0: greeting}
                while len(greetings) < size:
                    peer, _ = listener.accept()
                    rank, theirs = json.loads(_line(peer))
                    self._peers[rank] = peer
                    greetings[rank] = theirs
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self.greetings = [greetings[rank] for rank in range(size)]
        self.descriptor = os.memfd_create("paibook-ranks")
        os.ftruncate(self.descriptor, memory_bytes)
        answer = json.dumps(self.greetings).encode() + b"\n"
        try:
            for peer in self._peers.values():
                socket.send_fds(peer, [answer[:1]], [self.descriptor])
                peer.sendall(answer[1:])
        except OSError as error:
            raise CommunicatorError(f"a rank left while they were connecting: {error}") from error

    def _join(self, folder: Path, rank: int, greeting: Any) -> None:
        peer = _knock(folder)
        self._peers[0] = peer
        try:
            peer.sendall(json.dumps([rank, greeting]).encode() + b"\n")
            start, descriptors, _, _ = socket.recv_fds(peer, 1, 1)
        except OSError as error:
            raise CommunicatorError(f"rank 0 left while the ranks were connecting: {error}") from error
        if not descriptors:
            raise CommunicatorError("rank 0 left while the ranks were connecting")
        self.descriptor = descriptors[0]
        os.set_inheritable(self.descriptor, False)
        self.greetings = json.loads(start + _line(peer))


def _knock(folder: Path) -> socket.socket:
    while True:
        peer = socket.socket(socket.AF_UNIX)
        try:
            _at(folder, peer.connect)
            return peer
        except (FileNotFoundError, ConnectionRefusedError):  # rank 0 is not there yet
            peer.close()
            time.sleep(POLL_SECONDS)
        except BaseException:
            peer.close()
            raise


def _at(folder: Path, function: Callable[[str], None]) -> None:
    # The path of a socket is limited to 107 bytes, and temporary folders are often deeper.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        function(f"/proc/self/fd/{descriptor}/{_NAME}")
    finally:
        os.close(descriptor)


def _line(peer: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        try:
            part = peer.recv(_MESSAGE_BYTES)
        except OSError as error:
            raise CommunicatorError(f"a rank left while they were connecting: {error}") from error
        if not part:
            raise CommunicatorError("a rank left while they were connecting")
        data += part
    return data


def _watch(peers: dict[int, socket.socket], on_loss: Callable[[int], None]) -> None:
    ranks = {peer.fileno(): rank for rank, peer in peers.items()}
    poll = select.poll()
    for descriptor in ranks:
        poll.register(descriptor, select.POLLIN)
    (descriptor, _), *_ = poll.poll()
    on_loss(ranks[descriptor])


def _forget_in_child() -> None:
    for link in list(_links):
        link.forget()


_links: weakref.WeakSet[Link] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
