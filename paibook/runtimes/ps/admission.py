"""Which keys of a sparse table are given a row: features that are seen once or twice cost memory and teach nothing."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paibook.errors import TableError
from paibook.runtimes.ps.initializers import splitmix64

DEPTH = 4  # rows of the sketch
WIDTH = 1 << 20  # counters in each
_MOST = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class ByCount:
    """A key is given a row at its ``n``-th push; the gradients before are dropped.

    Keys without a row are counted in a count-min sketch of 8 MiB for each server, however many they are. It never
    counts too low; once millions of keys wait it may count too high, and a key may come in early.

    Attributes:
        n: Pushes, 1 to 65535; equal keys of one push count one by one.
    """

    n: int = 1


@dataclass(frozen=True)
class ByProbability:
    """Each push of a key without a row gives it one with probability ``p``; no counters at all.

    Attributes:
        p: Above 0, up to 1.
        seed: Draws are a function of it, the key and the table's step number, so a run can be repeated.
    """

    p: float = 1.0
    seed: int = 0


def to_wire(admit: Any) -> dict[str, Any] | None:
    """A table's ``admit`` as a JSON-able value.

    Raises:
        TableError: Neither None nor one of ours, or numbers that cannot be meant.
    """
    if admit is None:
        return None
    if isinstance(admit, ByCount):
        if isinstance(admit.n, bool) or not isinstance(admit.n, (int, np.integer)) or not 1 <= admit.n <= _MOST:
            raise TableError(f"ByCount takes a whole number from 1 to {_MOST}; got {admit.n!r}")
        return {"name": "ByCount", "n": int(admit.n)}
    if isinstance(admit, ByProbability):
        if isinstance(admit.p, bool) or not isinstance(admit.p, (int, float)) or not 0 < admit.p <= 1:
            raise TableError(f"ByProbability takes a number above 0, up to 1; got {admit.p!r}")
        return {"name": "ByProbability", **dataclasses.asdict(admit)}
    raise TableError(f"admit takes pai.ByCount(n), pai.ByProbability(p) or None; got {admit!r}")


class Admission:
    """One shard's decisions.

    Args:
        spec: As ``to_wire`` made it, not None.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self._n: int | None = spec.get("n")
        self._p: float = spec.get("p", 1.0)
        self._seed: int = spec.get("seed", 0)
        self.sketch = None if self._n is None else CountMinSketch()

    def admit(self, keys: NDArray[np.int64], step: int) -> NDArray[np.bool_]:
        """Which of the pushed keys without a row are given one.

        Args:
            keys: With duplicates, as pushed.
            step: The table's step number.
        """
        if self.sketch is not None and self._n is not None:
            unique, back, counts = np.unique(keys, return_inverse=True, return_counts=True)
            return self.sketch.count(unique, counts)[back] >= self._n
        stream = splitmix64(np.array([self._seed, step], np.int64).view(np.uint64))
        draws = splitmix64(splitmix64(keys.view(np.uint64) ^ stream[0]) ^ stream[1]) >> np.uint64(11)
        return draws.astype(np.float64) * 2.0**-53 < self._p


class CountMinSketch:
    """Counts of many keys in little memory (Cormode and Muthukrishnan, J. Algorithms 55, 2005).

    Only the smallest counters of a key are raised (conservative update: Estan and Varghese, SIGCOMM 2002).

    Attributes:
        counters: uint16, shape (depth, width), a power of two; they stay at 65535 once there.
    """

    def __init__(self, width: int = WIDTH) -> None:
        self.counters = np.zeros((DEPTH, width), np.uint16)

    def count(self, keys: NDArray[np.int64], times: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Add to the counts of different keys; returns the new counts, which are never too low."""
        width = self.counters.shape[1]
        seeds = splitmix64(np.arange(DEPTH, dtype=np.uint64))
        places = [(splitmix64(keys.view(np.uint64) ^ seed) & np.uint64(width - 1)).astype(np.int64) for seed in seeds]
        now = np.min([row[place] for row, place in zip(self.counters, places, strict=True)], axis=0).astype(np.int64)
        now = np.minimum(now + times, _MOST)
        for row, place in zip(self.counters, places, strict=True):
            np.maximum.at(row, place, now.astype(np.uint16))
        return now
