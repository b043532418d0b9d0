"""An interrupt may come at any line of what watches for it, and must cost the next cell nothing."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from types import FrameType

import pytest

from paibook.comms import sockets
from paibook.runtimes.allreduce.interrupts import PATIENCE_SECONDS, TorchSockets, watching


class Counted(TorchSockets):
    """Counts the cuts instead."""

    def __init__(self) -> None:
        super().__init__()
        self.was_cut = threading.Event()

    def cut(self) -> None:
        self.was_cut.set()


def interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def alarm() -> Iterator[None]:
    """SIGALRM interrupts; the wake-up descriptor is put back."""
    handler, descriptor = signal.signal(signal.SIGALRM, interrupt), signal.set_wakeup_fd(-1)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, handler)
    signal.set_wakeup_fd(descriptor)


@pytest.mark.timeout(60, method="thread")  # the other method uses the alarm that the test takes
@pytest.mark.usefixtures("alarm")
def test_an_interrupt_at_any_line_leaves_the_next_cell_whole() -> None:
    chance = random.Random(7)
    interrupted = 0
    for _ in range(400):
        try:
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-5, 6e-4))
            with watching(TorchSockets()):
                pass
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            interrupted += 1
    assert interrupted > 10
    with watching(TorchSockets()):
        pass
    assert signal.set_wakeup_fd(-1) == -1


def test_a_cell_that_does_not_see_the_interrupt_is_freed_and_one_that_has_ended_is_left_alone() -> None:
    quick, deaf = Counted(), Counted()
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), watching(quick):
            signal.raise_signal(signal.SIGINT)
        signal.signal(signal.SIGINT, lambda number, frame: None)
        with watching(deaf):
            assert not deaf.was_cut.is_set()
            signal.raise_signal(signal.SIGINT)
            assert deaf.was_cut.wait(10)
        time.sleep(2 * PATIENCE_SECONDS)
        assert not quick.was_cut.is_set()
    finally:
        signal.signal(signal.SIGINT, handler)


def test_connections_of_a_group_kept_from_an_earlier_cell_are_ended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch.distributed")
    from paibook.comms import process_groups

    here, peer = socket.socketpair()
    descriptor = here.detach()  # as of a C++ library: no object of Python's owns it
    kept = process_groups._Kept("name", None, frozenset(sockets.inodes_of([descriptor])))
    torch_sockets = TorchSockets()
    try:
        torch_sockets.note()
        torch_sockets.cut()
        peer.settimeout(0.1)
        with pytest.raises(TimeoutError):
            peer.recv(1)
        monkeypatch.setitem(process_groups._kept, ("host", "1", (0, 1)), kept)
        torch_sockets.note()
        torch_sockets.cut()
        assert peer.recv(1) == b""
    finally:
        os.close(descriptor)
        peer.close()
