"""Limits: what a task may hold in memory before it spills."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil

from paibook.runtimes.mapreduce.memory import rss

SHARE = 0.4  # of what is free under the bound: the estimate is rough, and packing what is held needs room as well
MACHINE_SHARE = 0.25  # of the machine's memory, for all its cores together, where there is no bound
LEAST = 8 << 20  # below this a task would do nothing but spill


@dataclass(frozen=True, slots=True)
class Limits:
    """What each worker process may use.

    Attributes:
        memory: Bytes in all, or None for a fair share of the machine.
    """

    memory: int | None = None

    def budget(self) -> int:
        """Bytes the calling task may hold, as Python objects."""
        if self.memory is None:
            cores = os.cpu_count() or 1
            return int(psutil.virtual_memory().total * MACHINE_SHARE / cores)
        return max(LEAST, int((self.memory - rss()) * SHARE))
