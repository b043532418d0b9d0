"""A table's weights as they were at the end, held by a fitted estimator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Weights:
    """Rows by key.

    Attributes:
        rows: ``(n, width)``.
        keys: Of each row, ascending; None where they are the rows' numbers.
    """

    rows: np.ndarray
    keys: np.ndarray | None = None

    @classmethod
    def of_result(cls, table: Any) -> Weights:
        """As a run's ``tables`` give them: an array, or keys and rows."""
        return cls(table[1], table[0]) if isinstance(table, tuple) else cls(table)

    def take(self, keys: np.ndarray) -> np.ndarray:
        """The rows of ``keys``; zeros for one that nobody has learned anything about."""
        if self.keys is None:
            places, known = keys, (keys >= 0) & (keys < len(self.rows))
        else:
            places = np.minimum(np.searchsorted(self.keys, keys), max(0, len(self.keys) - 1))
            known = self.keys[places] == keys if len(self.keys) else np.zeros(len(keys), bool)
        found = np.zeros((len(keys), *self.rows.shape[1:]), self.rows.dtype)
        found[known] = self.rows[places[known]]
        return found
