"""What is timed, the same code on every side, and a parameter server's tables in NumPy, which every peer serves."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

LR = 0.5
EPSILON = 1e-10
BATCHES = 16  # sets of keys, which take turns
SECONDS = 2.0  # for which several workers go on at once
WITHIN = 1e-4  # relative: a kernel may take its square roots otherwise

Array = NDArray[Any]
Keys = NDArray[np.int64]
Found = dict[str, "float | None"]


@dataclass(frozen=True)
class Job:
    """A table, and what is moved of it.

    Attributes:
        name: As shown.
        rows, width: The table's shape; float32.
        keys: Rows a turn moves; 0 for the whole table.
        turns: How often, in each block.
        pulls_only: A turn is one pull instead of a pull and a push.
    """

    name: str
    rows: int
    width: int
    keys: int
    turns: int
    blocks: int = 5
    pulls_only: bool = False

    def batches(self, worker: int = 0, workers: int = 1) -> list[Keys | None]:
        """Keys of the turns, each batch without duplicates; no key is another worker's too."""
        if not self.keys:
            return [None]
        rng = np.random.default_rng(worker)
        return [rng.choice(self.rows // workers, self.keys, replace=False) * workers + worker for _ in range(BATCHES)]

    def gradient(self) -> Array:
        """Of one turn: small whole numbers, so that sums are exact."""
        shape = (self.keys or self.rows, self.width)
        return (np.arange(shape[0] * shape[1]) % 1000).astype(np.float32).reshape(shape)

    def amount(self, seconds: float) -> float:
        """GB/s there and back, millions of keys a second, or microseconds."""
        if self.pulls_only:
            return seconds * 1e6
        if self.keys:
            return self.keys / seconds / 1e6
        return 2 * 4 * self.rows * self.width / seconds / 1e9


DENSE_4, DENSE_100 = Job("dense 4 MB", 1000, 1000, 0, 10), Job("dense 100 MB", 25_000, 1000, 0, 2, 3)
SPARSE = Job("10k keys x 16, Adagrad", 1_000_000, 16, 10_000, 20)
ROUND_TRIP = Job("100 keys, round trip", 10_000, 1, 100, 300, pulls_only=True)
JOBS = (DENSE_4, DENSE_100, SPARSE, ROUND_TRIP)


class Table(Protocol):
    """A table as the worker sees it; keys of None stand for every row."""

    def pull(self, keys: Keys | None) -> Array:
        """Its weights."""

    def push(self, keys: Keys | None, gradient: Array) -> None:
        """Send gradients; returns when the server has applied them."""


class Model:
    """The same in NumPy: SGD on a dense table, Adagrad (Duchi, Hazan and Singer, 2011) on a sparse one.

    Keys are places in an array, which is kinder to the peers than keys of 64 bits would be.
    """

    def __init__(self, job: Job) -> None:
        self.weights = np.zeros((job.rows, job.width), np.float32)
        self.squares = np.zeros_like(self.weights) if job.keys else None

    def pull(self, keys: Keys | None) -> Array:
        """See ``Table``."""
        return self.weights if keys is None else self.weights[keys]

    def push(self, keys: Keys | None, gradient: Array) -> None:
        """See ``Table``."""
        if keys is None or self.squares is None:
            self.weights -= np.float32(LR) * gradient
            return
        squares = self.squares[keys] + gradient * gradient
        self.squares[keys] = squares
        self.weights[keys] -= np.float32(LR) * gradient / (np.sqrt(squares) + np.float32(EPSILON))


def found(table_of: Callable[[Job], Table], jobs: Iterable[Job] = JOBS) -> Found:
    """What each job comes to in its unit, median over blocks of turns; None where the weights are wrong."""
    return {job.name: _one(job, table_of(job)) for job in jobs}


def keys_a_second(job: Job, table: Table, worker: int, workers: int, begin: Callable[[], None]) -> float | None:
    """Millions of keys a second of one of several workers, all of which begin at once and go on for a while."""
    batches, gradient = job.batches(worker, workers), job.gradient()
    if not _warm_up(job, table, batches, gradient):
        return None
    begin()
    began, turns = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < SECONDS:
        table.pull(batches[turns % BATCHES])
        table.push(batches[turns % BATCHES], gradient)
        turns += 1
    return turns * job.keys / passed / 1e6


def write(result: Found) -> None:
    """Write to the file that the command line names first."""
    Path(sys.argv[1]).write_text(json.dumps(result))


def _one(job: Job, table: Table) -> float | None:
    batches, gradient = job.batches(), job.gradient()
    if not _warm_up(job, table, batches, gradient):
        return None
    times, turn = [], 0
    for _ in range(job.blocks * (job.turns if job.pulls_only else 1)):
        began = time.perf_counter()
        for _ in range(1 if job.pulls_only else job.turns):
            keys = batches[turn % len(batches)]
            table.pull(keys)
            if not job.pulls_only:
                table.push(keys, gradient)
            turn += 1
        times.append((time.perf_counter() - began) / (1 if job.pulls_only else job.turns))
    return job.amount(statistics.median(times))


def _warm_up(job: Job, table: Table, batches: list[Keys | None], gradient: Array) -> bool:
    """Touch every key, and compare the weights with those of a model in this process."""
    model = Model(job)
    right = True
    for keys in (*batches, *batches):
        right = right and np.allclose(table.pull(keys), model.pull(keys), WITHIN, WITHIN)
        table.push(keys, gradient)
        model.push(keys, gradient)
    return right
