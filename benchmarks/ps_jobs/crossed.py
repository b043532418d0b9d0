"""A wide sparse set: a9a (UCI Adult as LIBSVM) with all pairs and triples of its features, for logistic regression."""

from __future__ import annotations

import functools
import gzip
import itertools
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DATA = Path(__file__).parents[3] / "shared" / "data"
TRAIN, TEST = "a9a.gz", "a9a.t.gz"
CACHE = Path(tempfile.gettempdir()) / "paibook-benchmarks" / "a9a-crossed"
BASE = 124  # above every feature's number
ORDER = 3  # features that are crossed, at most
BITS = 21  # of the largest key, for a side that keeps weights in one array

GOAL = 0.36  # log-loss on the test rows, which one pass reaches on every side
PASSES = 1
BATCH_ROWS = 128
ALPHA, BETA = 0.0004, 1.0  # of FTRL-Proximal; small, since hundreds of features of a row move together

Keys = NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Rows of features that are present or not.

    Attributes:
        labels: 0 or 1, one a row.
        starts: Where each row's keys start, and where the last ends.
        keys: Of all rows, one after the other.
    """

    labels: NDArray[np.float32]
    starts: Keys
    keys: Keys

    def part(self, first: int, last: int) -> Rows:
        """Rows ``first`` to before ``last``."""
        starts = self.starts[first : last + 1]
        return Rows(self.labels[first:last], starts - starts[0], self.keys[starts[0] : starts[-1]])

    def parts(self, size: int) -> Iterator[Rows]:
        """All rows, ``size`` at a time."""
        for first in range(0, len(self.labels), size):
            yield self.part(first, min(first + size, len(self.labels)))

    def share(self, rank: int, of: int) -> Rows:
        """One worker's rows."""
        ends = np.linspace(0, len(self.labels), of + 1).astype(int)
        return self.part(ends[rank], ends[rank + 1])


@dataclass(frozen=True)
class Batch:
    """Rows as a step wants them: each key once, and where it is used."""

    rows: Rows
    keys: Keys
    places: NDArray[np.intp]

    @classmethod
    def of(cls, rows: Rows) -> Batch:
        """Find each key once."""
        keys, places = np.unique(rows.keys, return_inverse=True)
        return cls(rows, keys, places)

    def gradient(self, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of the log-loss, summed over the rows; shape (keys,)."""
        residuals = 1 / (1 + np.exp(-self._scores(weights))) - self.rows.labels
        spread = np.repeat(residuals, np.diff(self.rows.starts))
        return np.bincount(self.places, spread, len(self.keys)).astype(np.float32)

    def loss(self, weights: NDArray[np.float32]) -> float:
        """The mean log-loss."""
        scores = self._scores(weights)
        return float(np.mean(np.logaddexp(0, scores) - self.rows.labels * scores))

    def _scores(self, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.add.reduceat(weights[self.places], self.rows.starts[:-1])


def rows(name: str) -> Rows:
    """The rows of a file, crossed; kept in the system's temporary folder.

    Raises:
        OSError: The file is missing.
    """
    kept = CACHE / f"{name}.npz"
    if not kept.exists():
        made = _cross(DATA / name)
        CACHE.mkdir(parents=True, exist_ok=True)
        staging = CACHE / f"{name}.{os.getpid()}.npz"
        np.savez(staging, labels=made.labels, starts=made.starts, keys=made.keys)
        staging.replace(kept)
    with np.load(kept) as arrays:
        return Rows(arrays["labels"], arrays["starts"], arrays["keys"])


def text(name: str) -> Path:
    """The same rows as Vowpal Wabbit reads them: ``1 |f 3 11 375 ...``."""
    kept = CACHE / f"{name}.vw"
    if not kept.exists():
        all_rows = rows(name)
        staging = kept.with_suffix(f".{os.getpid()}")
        with staging.open("w") as file:
            for label, row in zip(all_rows.labels, np.split(all_rows.keys, all_rows.starts[1:-1]), strict=True):
                file.write(f"{1 if label else -1} |f {' '.join(map(str, row.tolist()))}\n")
        staging.replace(kept)
    return kept


def found(seconds: float, loss: float) -> dict[str, Any]:
    """What a side writes: its seconds, if the goal was reached."""
    if loss > GOAL:
        print(f"the log-loss is {loss:.4f}, above the goal of {GOAL}", flush=True)
    return {"logistic": seconds if loss <= GOAL else None}


def _cross(path: Path) -> Rows:
    labels, starts, keys = [], [0], []
    with gzip.open(path, "rt") as lines:
        for line in lines:
            label, *pairs = line.split()
            features = np.array([int(pair.split(":")[0]) for pair in pairs])
            row = [_numbers(features[_combinations(len(features), n)]) for n in range(1, ORDER + 1)]
            keys.extend(row)
            starts.append(starts[-1] + sum(map(len, row)))
            labels.append(label == "+1")
    return Rows(np.array(labels, np.float32), np.array(starts), np.concatenate(keys))


@functools.cache
def _combinations(n: int, of: int) -> Any:
    return np.array(list(itertools.combinations(range(n), of)), np.int64).reshape(-1, of)


def _numbers(features: Any) -> Any:
    """One key for each row of features, as digits of base ``BASE``."""
    total = features[:, 0].astype(np.int64)
    for column in features.T[1:]:
        total = total * BASE + column
    return total
