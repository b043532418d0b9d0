"""Freeing a rank that sits in a collective of the user's own, where Python does not see Ctrl-C.

``comm`` polls and needs none of this. But torch's own collectives, and the backward pass of DistributedDataParallel,
wait inside C++ for a peer that may never come. A watcher thread learns of the signal from the interpreter's wake-up
descriptor; when the cell has not ended shortly after, it ends the connections that torch has made, the operation
fails, and the pending ``KeyboardInterrupt`` is raised.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from paibook.comms import sockets, torchrun

MARKS = range(128, 256)  # no signal has such a number
PATIENCE_SECONDS = 0.15  # what Python code needs at most to see the signal


class TorchSockets:
    """Which sockets torch may have opened: those that came after torch had none, and of groups kept since."""

    def __init__(self) -> None:
        self._foreign: set[int] = set()

    def note(self) -> None:
        """Call before a cell runs."""
        if not torchrun.initialized():
            self._foreign = sockets.inodes() - _kept_by_torch()

    def cut(self) -> None:
        """End torch's connections, also those of a process group that is still being made."""
        if torchrun.imported("torch.distributed") is not None:
            sockets.shut_down(sockets.inodes() - self._foreign - _owned_by_python())


class _Watch:
    """The process's watcher thread and its wake-up descriptor.

    Neither is ever closed: an interrupt may come at any line of ``watching``, and a descriptor that stays behind then
    must still take the bytes of later signals. Marks in the stream tell which cell a signal was meant for.
    """

    def __init__(self) -> None:
        self._told, self._tell = socket.socketpair()
        self._tell.setblocking(False)
        self._cells: dict[int, _WatchedCell] = {}  # by mark
        self._mark = MARKS[0]
        threading.Thread(target=self._loop, name="paibook-interrupts", daemon=True).start()

    def begin(self, torch_sockets: TorchSockets, tell: Callable[[], None]) -> _WatchedCell:
        """Signals from now on are meant for a new cell."""
        if self._mark in self._cells:
            self._cells[self._mark].ended = True  # its own end may have been cut short
        self._mark = MARKS[(self._mark + 1) % len(MARKS)]
        self._cells[self._mark] = cell = _WatchedCell(torch_sockets, tell)
        self._tell.send(bytes([self._mark]))
        return cell

    def listen(self) -> int:
        """Make this the interpreter's wake-up descriptor; returns the one before."""
        mine = self._tell.fileno()
        previous = signal.set_wakeup_fd(mine, warn_on_full_buffer=False)
        return -1 if previous == mine else previous

    def _loop(self) -> None:
        cell: _WatchedCell | None = None
        while True:
            for number in self._told.recv(64):
                if number in MARKS:
                    cell = self._cells[number]
                elif number == signal.SIGINT and cell is not None:
                    time.sleep(PATIENCE_SECONDS)
                    if not cell.ended:
                        cell.torch_sockets.cut()
                        cell.tell()


class _WatchedCell:
    def __init__(self, torch_sockets: TorchSockets, tell: Callable[[], None]) -> None:
        self.torch_sockets, self.tell = torch_sockets, tell
        # Not an Event: an interrupt inside its set() would leave its lock taken for ever.
        self.ended = False


_watches: dict[int, _Watch] = {}  # by process id: a forked child has no watcher thread


@contextmanager
def watching(torch_sockets: TorchSockets, tell: Callable[[], None] = lambda: None) -> Iterator[None]:
    """While the block runs, let an interrupt reach it even inside torch's collectives.

    Args:
        torch_sockets: What to end then.
        tell: Called, from another thread, when the block has not seen an interrupt for a while.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread only
        return
    torch_sockets.note()
    watch = _watches.get(os.getpid()) or _watches.setdefault(os.getpid(), _Watch())
    cell = watch.begin(torch_sockets, tell)
    previous = -1
    try:
        previous = watch.listen()
        yield
    finally:
        cell.ended = True
        _restore(previous)


def _restore(previous: int) -> None:
    try:
        signal.set_wakeup_fd(previous)
    except (ValueError, OSError):  # whoever set it has closed it meanwhile
        signal.set_wakeup_fd(-1)


def _kept_by_torch() -> set[int]:
    """Connections of an earlier cell's groups that this one may wait in."""
    process_groups = torchrun.imported("paibook.comms.process_groups")
    return set() if process_groups is None else process_groups.connections()


def _owned_by_python() -> set[int]:
    # By type(): isinstance() asks the objects, and some of torch's answer with a warning.
    descriptors = {item.fileno() for item in gc.get_objects() if issubclass(type(item), socket.socket)}
    return sockets.inodes_of(descriptors)
