"""How much memory a server's sparse tables may take, and each one's share of it.

What workers make a server hold, their keys and what it shares with them, is counted as it grows, so tables hold less.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Hashable

import psutil

from paibook.errors import RunError

SHARE = 0.7  # of what is free under the bound; the rest is for messages, waiting pushes and what moves to disk
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of glibc's malloc.h
_RETURNED_BYTES = 1 << 20
LEAST = 4 << 20  # a smaller bound is nothing but spilling


class MemoryBudget:
    """Shared by the tables of one server; for any thread.

    Args:
        memory: Bytes the process may use, as ``--memory`` says.

    Attributes:
        limit: Bytes for all tables; known once the first asks for its share, when what compiled code takes is loaded.
    """

    def __init__(self, memory: int) -> None:
        give_back_freed_memory()
        self.limit: int | None = None
        self._memory = memory
        self._taken: dict[Hashable, int] = {}
        self._reserved: dict[int, int] = {}
        self._sharers: set[Hashable] = set()
        self._lock = threading.Lock()

    def take(self, table: Hashable, nbytes: int) -> None:
        """A dense table holds these bytes, always."""
        with self._lock:
            self._taken[table] = 0 if self.limit is None else nbytes  # before, they count as the process's own

    def reserve(self, rank: int, nbytes: int) -> None:
        """The connection of a worker holds, or will soon hold, these bytes; what was said of it before is forgotten."""
        with self._lock:
            self._reserved[rank] = nbytes

    def join(self, table: Hashable) -> None:
        """A sparse table asks for a share."""
        with self._lock:
            self._sharers.add(table)

    def leave(self, table: Hashable) -> None:
        """A table is no more. Safe to repeat."""
        with self._lock:
            self._taken.pop(table, None)
            self._sharers.discard(table)

    def share(self) -> int:
        """Bytes that each sparse table may hold now; less when another one has joined.

        Raises:
            RunError: The process alone takes all of the memory.
        """
        with self._lock:
            if self.limit is None:
                self.limit = self._free()
            held = sum(self._taken.values()) + sum(self._reserved.values())
            return max(LEAST // 4, self.limit - held) // max(1, len(self._sharers))

    def _free(self) -> int:
        give_back_freed_memory()
        own = int(psutil.Process().memory_info().rss)
        if self._memory - own < LEAST:
            raise RunError(
                f"--memory {self._memory / 2**20:.0f}MB is less than a server takes without any sparse table; "
                f"give it {own / 2**20 + 64:.0f}MB or more"
            )
        return int((self._memory - own) * SHARE)


def give_back_freed_memory() -> None:
    """Have the C library return what is freed to the system, which it may have been told not to for speed."""
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, _RETURNED_BYTES)
        libc.mallopt(_TRIM_THRESHOLD, _RETURNED_BYTES)
        libc.malloc_trim(0)
    except (OSError, AttributeError):
        pass  # another C library, which has its own way
