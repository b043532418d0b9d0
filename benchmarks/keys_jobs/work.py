"""What is timed, the same code on every side: a table that grows to so many keys, and then is pushed to and pulled."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import numpy as np
import psutil
from numpy.typing import NDArray

from paibook.runtimes.ps.initializers import splitmix64

BATCH = 100_000  # keys of a push or a pull
BATCHES = 20  # of each, once the table has grown
WITHIN = 1e-4  # relative: a kernel may take its square roots otherwise
ALPHA, BETA = 0.1, 1.0  # of FTRL
LR, EPSILON = 0.01, 1e-10  # of Adagrad

MEMORY, FILLING, PUSHES, PULLS = "memory per key", "pushes of new keys", "pushes", "pulls"

Array = NDArray[Any]
Keys = NDArray[np.int64]


@dataclass(frozen=True)
class Kind:
    """A table: float32, all zeros at first.

    Attributes:
        name: As shown.
        optimizer: Its name.
        width: Numbers in a row.
        state: What the optimiser keeps of each.
        once: A weight after one gradient of 1.
        most: Keys it is grown to, at most.
    """

    name: str
    optimizer: str
    width: int
    state: int
    once: float
    most: int

    @property
    def least(self) -> int:
        """Bytes that a key cannot do without: itself, its weights and their state."""
        return 8 + 4 * self.width * (1 + self.state)


KINDS = (
    Kind("width 1, FTRL", "FTRL", 1, 2, -ALPHA / (BETA + 1), 10**8),
    Kind("width 16, Adagrad", "Adagrad", 16, 1, -LR, 10**7),
)


class Table(Protocol):
    """A table in this process."""

    def push(self, keys: Keys, gradient: Array) -> None:
        """Step the rows of keys, made where there is none; owns the gradient from now on."""

    def pull(self, keys: Keys) -> Array:
        """Their weights, and the first ones where there is no row."""


def run(make: Callable[[Kind], Table], used: Callable[[Any], int | None] = lambda table: None) -> None:
    """Grow the table that the command line names, ``KIND KEYS FILE``, and write what came of it.

    Args:
        make: Makes a table.
        used: Bytes that a table says it takes.

    Raises:
        ValueError: Its weights are wrong.
    """
    kind = {kind.name: kind for kind in KINDS}[sys.argv[1]]
    count = int(sys.argv[2])
    _times(make(kind), kind, BATCH, 1)  # what has to be loaded and compiled is
    process = psutil.Process()
    before = process.memory_info().rss
    table = make(kind)
    filling = _filled(table, kind, count)
    memory = (process.memory_info().rss - before) / count
    _check(table, kind, count)
    pushes, pulls = _times(table, kind, count)
    says = used(table)
    found = {
        MEMORY: memory,
        FILLING: count / filling / 1e6,
        PUSHES: BATCH / pushes / 1e6,
        PULLS: BATCH / pulls / 1e6,
        "says": None if says is None else says / count,
    }
    Path(sys.argv[-1]).write_text(json.dumps(found))


def keys(numbers: Keys) -> Keys:
    """The keys of these numbers: each number's own, all over 64 bits."""
    return splitmix64(numbers.view(np.uint64)).view(np.int64)


def _ones(kind: Kind) -> Array:
    return np.ones((BATCH, kind.width), np.float32)


def _filled(table: Table, kind: Kind, count: int) -> float:
    """Push to the first keys, once to each; seconds."""
    seconds = 0.0
    for start in range(0, count, BATCH):
        some, gradient = keys(np.arange(start, min(start + BATCH, count))), _ones(kind)
        began = time.perf_counter()
        table.push(some, gradient[: len(some)])
        seconds += time.perf_counter() - began
    return seconds


def _batches(count: int, seed: int, batches: int) -> Iterator[Keys]:
    rng = np.random.default_rng(seed)
    for _ in range(batches):
        yield keys(rng.integers(0, count, BATCH))


def _check(table: Table, kind: Kind, count: int) -> None:
    known = next(_batches(count, 0, 1))
    weights, others = table.pull(known), table.pull(keys(np.arange(-1000, 0)))
    if not np.allclose(weights, kind.once, WITHIN) or others.any():
        raise ValueError(f"weights of {kind.name}, {count} keys, are wrong: {weights[0, 0]} where {kind.once} is right")


def _times(table: Table, kind: Kind, count: int, batches: int = BATCHES) -> tuple[float, float]:
    """Seconds of a push to and of a pull of random keys among the first, medians."""
    pushes, pulls = [], []
    for some in _batches(count, 1, batches):
        gradient, began = _ones(kind), time.perf_counter()
        table.push(some, gradient)
        pushes.append(time.perf_counter() - began)
    for some in _batches(count, 2, batches):  # others, which are in no cache
        began = time.perf_counter()
        table.pull(some)
        pulls.append(time.perf_counter() - began)
    return median(pushes), median(pulls)
