"""How the ranks of one host meet without a port, and learn that one of them is gone.

They meet at a Unix socket in a folder of mode 0700 (see ``addresses``). Rank 0 hands out a memory file that has no name
anywhere (memfd), so that nothing is left of it however the ranks end. The connections stay open and carry nothing more:
the kernel closes them when a process dies, also by ``kill -9``. Rank 0 watches all others, and they watch rank 0.
"""

from __future__ import annotations

import json
import os
import select
import socket
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from paibook.comms.errors import CommunicatorError

POLL_SECONDS = 0.001
SLICE_SECONDS = 0.05
_LEFT = "a rank left while the ranks were connecting"
_NAME = "ranks"
_MESSAGE_BYTES = 1 << 16


class Link:
    """One rank's connections to the others of its host.

    Args:
        folder: Where they meet; it is there.
        rank, size: This rank's number, and how many there are.

    Attributes:
        descriptor: Of the memory file, which the caller closes.
        greetings: Every rank's.
    """

    descriptor: int
    greetings: Sequence[Any]

    def __init__(self, folder: Path, rank: int, size: int) -> None:
        self._folder, self._rank, self._size = folder, rank, size
        self._peers: dict[int, socket.socket] = {}
        self._closed = False
        _links.add(self)

    def connect(self, greeting: Any, memory_bytes: int) -> None:
        """Wait for all ranks, and get the memory they share.

        Args:
            greeting: What the others are to know about this rank.
            memory_bytes: Size of the memory file.

        Raises:
            CommunicatorError: A rank left meanwhile, or ``close`` was called.
        """
        try:
            if self._rank == 0:
                self._gather(greeting, memory_bytes)
            else:
                self._join(greeting)
        except OSError as error:
            raise CommunicatorError(f"a rank left while the ranks were connecting: {error}") from error

    def watch(self, on_loss: Callable[[int], None]) -> None:
        """Call ``on_loss`` with the rank that is gone, from a thread of its own, once."""
        if self._peers:
            threading.Thread(target=_watch, args=(self._peers, on_loss), name="paibook-ranks", daemon=True).start()

    def close(self) -> None:
        """Leave; the others are told. Safe from any thread, and to repeat."""
        self._closed = True
        for peer in list(self._peers.values()):
            try:
                peer.shutdown(socket.SHUT_RDWR)  # wakes the watching thread too
            except OSError:
                pass  # the other side was first

    def forget(self) -> None:
        """Drop a forked parent's connections, which would seem alive as long as the child is."""
        for peer in self._peers.values():
            peer.close()

    def _gather(self, greeting: Any, memory_bytes: int) -> None:
        greetings = {0: greeting}
        with socket.socket(socket.AF_UNIX) as listener:
            _at(self._folder, listener.bind)
            listener.listen(self._size)
            listener.settimeout(SLICE_SECONDS)
            while len(greetings) < self._size:
                self._check()
                try:
                    peer, _ = listener.accept()
                except TimeoutError:
                    continue
                peer.setblocking(True)
                rank, theirs = json.loads(_line(peer))
                self._peers[rank] = peer
                greetings[rank] = theirs
        self._check()
        self.greetings = [greetings[rank] for rank in range(self._size)]
        self.descriptor = os.memfd_create("paibook-ranks")
        os.ftruncate(self.descriptor, memory_bytes)
        answer = json.dumps(self.greetings).encode() + b"\n"
        for peer in self._peers.values():
            socket.send_fds(peer, [answer[:1]], [self.descriptor])
            peer.sendall(answer[1:])

    def _join(self, greeting: Any) -> None:
        peer = self._peers[0] = self._knock()
        self._check()
        peer.sendall(json.dumps([self._rank, greeting]).encode() + b"\n")
        start, descriptors, _, _ = socket.recv_fds(peer, 1, 1)
        if not descriptors:
            raise CommunicatorError(_LEFT)
        self.descriptor = descriptors[0]
        os.set_inheritable(self.descriptor, False)
        self.greetings = json.loads(start + _line(peer))

    def _knock(self) -> socket.socket:
        while True:
            self._check()
            peer = socket.socket(socket.AF_UNIX)
            try:
                _at(self._folder, peer.connect)
                return peer
            except (FileNotFoundError, ConnectionRefusedError):  # rank 0 is not there yet
                peer.close()
                time.sleep(POLL_SECONDS)
            except BaseException:
                peer.close()
                raise

    def _check(self) -> None:
        if self._closed or not self._folder.exists():  # a rank that leaves removes it
            raise CommunicatorError("this group of ranks was ended")


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
        part = peer.recv(_MESSAGE_BYTES)
        if not part:
            raise CommunicatorError(_LEFT)
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
