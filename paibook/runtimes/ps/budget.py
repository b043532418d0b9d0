"""How much memory a server's sparse tables may take, and each one's share of it."""

from __future__ import annotations

import threading
from collections.abc import Hashable

import psutil

from paibook.errors import PlanError

SHARE = 0.7  # of what is free under the bound when the tables come; the rest is for messages and waiting pushes
LEAST = 4 << 20  # a smaller bound is nothing but spilling


class MemoryBudget:
    """Shared by the tables of one server; for any thread.

    Args:
        memory: Bytes the process may use, as ``--memory`` says.
    """

    def __init__(self, memory: int) -> None:
        free = memory - int(psutil.Process().memory_info().rss)
        if free < LEAST:
            raise PlanError(
                f"--memory {memory / 2**20:.0f}MB is less than a server takes before it holds any table; "
                f"give it {(memory - free + 2 * LEAST) / 2**20:.0f}MB or more"
            )
        self.limit = int(free * SHARE)
        self._taken = 0
        self._sharers: set[Hashable] = set()
        self._lock = threading.Lock()

    def take(self, nbytes: int) -> None:
        """A dense table holds these bytes, always."""
        with self._lock:
            self._taken += nbytes

    def join(self, table: Hashable) -> None:
        """A sparse table asks for a share."""
        with self._lock:
            self._sharers.add(table)

    def share(self) -> int:
        """Bytes that each sparse table may hold now; less when another one has joined."""
        with self._lock:
            return max(LEAST // 4, self.limit - self._taken) // max(1, len(self._sharers))
