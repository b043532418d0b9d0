"""Freeing a rank that sits in a collective of the user's own, where Python does not see Ctrl-C.

``comm`` polls and needs none of this. But torch's own collectives, and the backward pass of DistributedDataParallel,
wait inside C++ for a peer that may never come. A watcher thread learns of the signal from the interpreter's wake-up
descriptor; when the cell has not ended shortly after, it ends the connections that torch has made, the operation
fails, and the pending ``KeyboardInterrupt`` is raised.
"""

from __future__ import annotations

import gc
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from paibook.comms import sockets, torchrun

PATIENCE_SECONDS = 0.15  # what Python code needs at most to see the signal


class TorchSockets:
    """Which sockets of this process torch may have opened: those that came after torch had none."""

    def __init__(self) -> None:
        self._foreign: set[int] = set()

    def note(self) -> None:
        """Call before a cell runs."""
        if not torchrun.initialized():
            self._foreign = sockets.inodes()

    def cut(self) -> None:
        """End torch's connections, also those of a process group that is still being made."""
        if "torch.distributed" in sys.modules:
            sockets.shut_down(sockets.inodes() - self._foreign - _owned_by_python())


@contextmanager
def watching(torch_sockets: TorchSockets) -> Iterator[None]:
    """While the block runs, let an interrupt reach it even inside torch's collectives."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread only
        return
    torch_sockets.note()
    told, tell = socket.socketpair()
    tell.setblocking(False)
    previous = signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(told, ended, torch_sockets), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(previous)
        tell.close()


def _watch(told: socket.socket, ended: threading.Event, torch_sockets: TorchSockets) -> None:
    with told:
        while not ended.is_set():
            select.select([told], [], [])
            numbers = told.recv(64)
            if not numbers:
                return
            if signal.SIGINT in numbers and not ended.wait(PATIENCE_SECONDS):
                torch_sockets.cut()


def _owned_by_python() -> set[int]:
    # By type(): isinstance() asks the objects, and some of torch's answer with a warning.
    descriptors = {item.fileno() for item in gc.get_objects() if issubclass(type(item), socket.socket)}
    return sockets.inodes_of(descriptors)
