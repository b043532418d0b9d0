"""Ranks that are threads: what a function gives on each of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from paibook.comms.threads import ThreadCommunicator, ThreadGroup


def on_ranks(size: int, function: Callable[[Any], Any]) -> list[Any]:
    """``function(comm)`` on every rank of a new group; what one raises frees the others."""
    group = ThreadGroup(size)

    def run(rank: int) -> Any:
        try:
            return function(ThreadCommunicator(group, rank))
        except BaseException:
            group.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))
