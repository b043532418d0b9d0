"""What a server has been asked so far, counted for whoever watches the run: requests, bytes, staleness, hot keys."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLED_EVERY = 8  # requests: of the others' keys nothing is counted
SAMPLED_KEYS = 32  # of a request
MOST_KEYS = 2048  # counted at a time; then the half that came least is forgotten (Manku and Motwani, VLDB 2002)
SHOWN_KEYS = 5


class Activity:
    """Counts of one server, since it began; for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pulls = self._pushes = self._keys = 0
        self._bytes: dict[int, list[int]] = {}  # by worker: received, sent
        self._staleness: dict[str, Counter[int]] = {}
        self._hot: Counter[tuple[str, int]] = Counter()
        self._sampled = 0

    def pulled(
        self,
        rank: int,
        table: str,
        keys: NDArray[np.int64] | None,
        rows: NDArray[Any],
        staleness: int,
        first: int = 0,
    ) -> None:
        """A worker has been given rows; ``keys`` are counted from row ``first`` of the table."""
        with self._lock:
            self._pulls += 1
            self._count(rank, table, keys, first, len(rows), 1, rows.nbytes)
            self._staleness.setdefault(table, Counter())[max(0, staleness)] += 1

    def pushed(
        self, rank: int, table: str, keys: NDArray[np.int64] | None, gradient: NDArray[Any], first: int = 0
    ) -> None:
        """A worker has pushed; for ``first`` see ``pulled``."""
        with self._lock:
            self._pushes += 1
            self._count(rank, table, keys, first, len(gradient), 0, gradient.nbytes)

    def to_wire(self) -> dict[str, Any]:
        """As a JSON-able value.

        Returns:
            ``pulls``, ``pushes``, ``keys``; ``bytes``: worker's rank to bytes received and sent; ``staleness``: table
            to staleness in clocks to pulls; ``hot``: table, key and share of the sample, of the keys asked for most.
        """
        with self._lock:
            hot = [[table, key, count / self._sampled] for (table, key), count in self._hot.most_common(SHOWN_KEYS)]
            return {
                "pulls": self._pulls,
                "pushes": self._pushes,
                "keys": self._keys,
                "bytes": {str(rank): list(both) for rank, both in self._bytes.items()},
                "staleness": {table: {str(s): n for s, n in seen.items()} for table, seen in self._staleness.items()},
                "hot": hot,
            }

    def _count(
        self, rank: int, table: str, keys: NDArray[np.int64] | None, first: int, rows: int, direction: int, size: int
    ) -> None:
        self._keys += rows
        self._bytes.setdefault(rank, [0, 0])[direction] += size
        if keys is not None and len(keys) and (self._pulls + self._pushes) % SAMPLED_EVERY == 0:
            step = max(1, len(keys) // SAMPLED_KEYS)
            chosen = keys[random.randrange(step) :: step].tolist()
            self._sampled += len(chosen)
            self._hot.update((table, first + key) for key in chosen)
            if len(self._hot) > MOST_KEYS:
                self._hot = Counter(dict(self._hot.most_common(MOST_KEYS // 2)))
