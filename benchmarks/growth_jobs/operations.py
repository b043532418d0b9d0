"""The operations that are timed, the same code on every side: only who starts the ranks, and who adds up, differs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy

READY, NO_OP, BARRIER, ALLREDUCE = "ready", "no-op", "barrier", "allreduce"
NO_OPS = 20
TURNS, SECONDS = 5, 0.5  # of an operation: the median of so many turns, each about as long as this
ELEMENTS = 256  # float32, 1 kB: what it costs that there are many, not that it is much


def collectives(rank: int, size: int, barrier: Callable[[], Any], add_up: Callable[[Any], Any]) -> dict[str, float]:
    """Seconds of a barrier and of a small allreduce.

    Args:
        barrier: Waits for all ranks.
        add_up: Replaces a float32 array by its sum over the ranks.

    Raises:
        ValueError: The sum is not right.
    """
    array = numpy.full(ELEMENTS, rank, "f4")
    add_up(array)
    if not (array == size * (size - 1) / 2).all():
        raise ValueError(f"rank {rank} got {array[0]} where {size * (size - 1) / 2} is right")
    return {
        BARRIER: _timed(barrier, size, barrier, add_up),
        ALLREDUCE: _timed(lambda: add_up(array), size, barrier, add_up),
    }


def _timed(operation: Callable[[], Any], size: int, barrier: Callable[[], Any], add_up: Callable[[Any], Any]) -> float:
    times: list[float] = []
    count = 1
    while len(times) < TURNS:
        barrier()
        began = time.perf_counter()
        for _ in range(count):
            operation()
        # All ranks are to go on alike, so they agree on what it took.
        seconds = numpy.array([(time.perf_counter() - began) / size], "f4")
        add_up(seconds)
        mean = float(seconds[0])
        if not times and mean < SECONDS and count < 4096:
            count *= 2
        else:
            times.append(mean / count)
    return median(times)


def write(found: dict[str, float]) -> None:
    """What was found, in seconds, to the file that the command line names last."""
    Path(sys.argv[-1]).write_text(json.dumps(found))
