"""The topic of each word of a worker's texts, kept on the servers too: for the worker that takes its place."""

from __future__ import annotations

import numpy as np

from paibook.runtimes.ps.client import ParameterServer
from paibook.runtimes.ps.initializers import splitmix64
from paibook.runtimes.ps.optimizers import SGD

ADDS = SGD(lr=-1.0)  # what is pushed is added
_WIDTH = 64  # words of a row; a row's key takes as much memory as some twenty of them
_EXACT_IN_16_BITS = 2048


class Assignments:
    """Topics by the word's place, as the last worker of this rank left them; each is sent when it changes.

    Args:
        ps: What ``train`` is given.
        name: The table's.
        words: How many the worker's texts have.
        components: Topics.
    """

    def __init__(self, ps: ParameterServer, name: str, words: int, components: int) -> None:
        dtype = "float16" if components <= _EXACT_IN_16_BITS else "float32"
        self._table = ps.table(name, sparse=True, width=_WIDTH, dtype=dtype, optimizer=ADDS)
        # Keys tell groups of another size apart: their workers have other texts.
        worker = splitmix64(np.array([ps.world_size << 32 | ps.rank], np.uint64))
        self._keys = splitmix64(worker ^ np.arange(-(-words // _WIDTH), dtype=np.uint64)).view(np.int64)
        self._rows = self._table.pull(self._keys).astype(np.int32)  # of each word its topic + 1, or 0

    def take(self, places: np.ndarray) -> np.ndarray:
        """Topics of some words, int32; -1 where a word has none yet."""
        found: np.ndarray = self._rows.reshape(-1)[places] - 1
        return found

    def put(self, places: np.ndarray, topics: np.ndarray) -> None:
        """Give some words other topics."""
        rows = np.unique(places // _WIDTH)
        before = self._rows[rows]
        self._rows.reshape(-1)[places] = topics + 1
        self._table.push(self._keys[rows], self._rows[rows] - before)
