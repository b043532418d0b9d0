"""What there is without more: a Python dict from keys to NumPy rows of weights and state: ``dict_side KIND KEYS FILE``.

Rows of a batch are gathered, stepped at once, and written back, which is several times as fast as row by row.
"""

from __future__ import annotations

import numpy as np

from benchmarks.keys_jobs import work


class Rows:
    """A row is of shape (1 + state, width): its weights come first."""

    def __init__(self, kind: work.Kind) -> None:
        self._kind = kind
        self._step = {"FTRL": _ftrl, "Adagrad": _adagrad}[kind.optimizer]
        self._shape = (1 + kind.state, kind.width)
        self._rows: dict[int, work.Array] = {}

    def push(self, keys: work.Keys, gradient: work.Array) -> None:
        """See ``work.Table``; duplicates are added up."""
        unique, back = np.unique(keys, return_inverse=True)
        total = np.zeros((len(unique), self._kind.width), np.float32)
        np.add.at(total, back, gradient)
        names = unique.tolist()
        for name in names:
            if name not in self._rows:
                self._rows[name] = np.zeros(self._shape, np.float32)
        rows = [self._rows[name] for name in names]
        for row, new in zip(rows, self._step(np.array(rows), total), strict=True):
            row[:] = new

    def pull(self, keys: work.Keys) -> work.Array:
        """See ``work.Table``."""
        zeros = np.zeros(self._shape, np.float32)
        return np.array([self._rows.get(name, zeros)[0] for name in keys.tolist()])


def _ftrl(rows: work.Array, gradient: work.Array) -> work.Array:
    """FTRL-Proximal without regularisation (McMahan et al., KDD 2013, algorithm 1)."""
    w, z, n = rows.swapaxes(0, 1)
    grown = n + gradient * gradient
    z = z + gradient - (np.sqrt(grown) - np.sqrt(n)) / np.float32(work.ALPHA) * w
    return np.stack([-z * np.float32(work.ALPHA) / (np.float32(work.BETA) + np.sqrt(grown)), z, grown], axis=1)


def _adagrad(rows: work.Array, gradient: work.Array) -> work.Array:
    """Adagrad (Duchi, Hazan and Singer, JMLR 12, 2011)."""
    w, squares = rows.swapaxes(0, 1)
    squares = squares + gradient * gradient
    step = np.float32(work.LR) * gradient / (np.sqrt(squares) + np.float32(work.EPSILON))
    return np.stack([w - step, squares], axis=1)


if __name__ == "__main__":
    work.run(Rows)
