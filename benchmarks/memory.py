"""Peak memory of a process and everything below it."""

from __future__ import annotations

import threading
from typing import Any

import psutil

EVERY = 0.2  # seconds between two looks


class PeakMemory:
    """Watches a process tree while its ``with`` block runs.

    Attributes:
        peak: Largest sum seen, in bytes: of proportional set sizes, so that what processes share counts once.
    """

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak = 0

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        over = False
        while not over:  # one look at least, at the end
            over = self._over.wait(EVERY)
            self.peak = max(self.peak, self._now())

    def _now(self) -> int:
        try:
            processes = [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return 0
        return sum(map(_size, processes))


def _size(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
