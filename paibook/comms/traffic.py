"""What a rank's communication has moved, and how long it waited for others: counted where it happens."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Traffic:
    """One rank's counts, which all its communicators of a world share; other threads may read them at any time.

    Attributes:
        sent: Messages and their bytes, by the world's rank that they went to.
        written: Bytes put into memory that ranks share.
        read: Bytes taken from there.
        handed: Bytes given to a library (gloo, MPI, NCCL), which does not tell where it sends them.
        library_seconds: Time in that library, which does not tell waiting from sending.
        waited: Seconds of waits for other ranks that have ended.
    """

    sent: dict[int, tuple[int, int]]
    written: int
    read: int
    handed: int
    library_seconds: float
    waited: float

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._awaited: dict[int, int] = {}
        self.reset()

    def reset(self) -> None:
        """Begin to count anew."""
        self.sent = {}
        self.written = self.read = self.handed = 0
        self.library_seconds = self.waited = 0.0

    def count_sent(self, dest: int, size: int) -> None:
        """Count a message of ``size`` bytes; for one thread at a time."""
        messages, total = self.sent.get(dest, (0, 0))
        self.sent[dest] = messages + 1, total + size

    def awaited(self, thread: int) -> int | None:
        """The rank whose message a thread waits for (``ANY_SOURCE``: anyone's); None where it waits for none."""
        return self._awaited.get(thread)

    @contextmanager
    def waiting(self, source: int) -> Iterator[None]:
        """While the block runs, this thread waits for a message of ``source``."""
        thread, began = threading.get_ident(), time.monotonic()
        self._awaited[thread] = source
        try:
            yield
        finally:
            self._awaited.pop(thread, None)
            self.add_wait(time.monotonic() - began)

    def add_wait(self, seconds: float) -> None:
        """Count a wait that has ended."""
        with self._lock:
            self.waited += seconds

    def add_library(self, size: int, seconds: float) -> None:
        """Count an operation of a library's, on buffers of ``size`` bytes."""
        self.handed += size
        self.library_seconds += seconds


def bytes_of(*arrays: Any) -> int:
    """The size of some arrays, of which any may be None."""
    return sum(array.nbytes for array in arrays if array is not None)
