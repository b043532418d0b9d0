"""Matrices: what estimators compute with, which is anything with ``shape``, ``X @ w`` and ``X.T @ r``.

NumPy's arrays and scipy's matrices are taken as they are. Sparse rows read from LIBSVM files need no scipy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow

BLOCK = 1 << 22  # numbers of a dense block


class SparseRows:
    """Rows that are mostly zeros, compressed (CSR).

    Args:
        starts: Where each row's entries begin, and the last one's end, ``(n + 1,)``.
        columns: The column of each entry, int64.
        values: Of each entry, float64.
        width: Columns.
    """

    def __init__(self, starts: np.ndarray, columns: np.ndarray, values: np.ndarray, width: int) -> None:
        self.shape = (len(starts) - 1, width)
        self.starts, self.columns, self.values = starts, columns, values
        self.entry_rows = np.repeat(np.arange(self.shape[0]), np.diff(starts))

    def __matmul__(self, dense: np.ndarray) -> np.ndarray:
        """Times a vector ``(width,)`` or a matrix ``(width, k)``."""
        return gathered(dense, self.columns, self.values, self.entry_rows, self.shape[0])

    @property
    def T(self) -> Transposed:
        """The transpose, for ``X.T @ r``."""
        return Transposed(self)

    def __getitem__(self, rows: slice) -> SparseRows:
        start, stop, _ = rows.indices(self.shape[0])
        starts = self.starts[start : max(start, stop) + 1]
        inside = slice(starts[0], starts[-1])
        return SparseRows(starts - starts[0], self.columns[inside], self.values[inside], self.shape[1])

    def toarray(self) -> np.ndarray:
        """The same rows, dense; values of an entry that is there twice are added."""
        dense = np.zeros(self.shape)
        np.add.at(dense, (self.entry_rows, self.columns), self.values)
        return dense


class Transposed:
    """The transpose of sparse rows."""

    def __init__(self, rows: SparseRows) -> None:
        self._of = rows

    def __matmul__(self, dense: np.ndarray) -> np.ndarray:
        """Times a vector ``(n,)`` or a matrix ``(n, k)``."""
        return gathered(dense, self._of.entry_rows, self._of.values, self._of.columns, self._of.shape[1])


def gathered(dense: np.ndarray, source: np.ndarray, values: np.ndarray, target: np.ndarray, length: int) -> np.ndarray:
    """For each entry its value times ``dense[source]``, added up at ``target``."""
    if dense.ndim == 1:
        return np.bincount(target, weights=values * dense.take(source), minlength=length)
    return np.stack([gathered(column, source, values, target, length) for column in dense.T], axis=1)


def is_libsvm(table: Any) -> bool:
    """Whether a value is a table of LIBSVM rows."""
    return isinstance(table, pyarrow.Table) and {"label", "indices", "values"} <= set(table.column_names)


def index_range(table: pyarrow.Table) -> tuple[int, int] | None:
    """The least and the greatest index of LIBSVM rows; None where there is none."""
    found = _flat(table, "indices")
    return (int(found.min()), int(found.max())) if len(found) else None


def libsvm_rows(table: pyarrow.Table, width: int, first: int) -> SparseRows:
    """LIBSVM rows as sparse rows.

    Args:
        width: Columns.
        first: The index that is column 0.
    """
    lengths = table["indices"].combine_chunks().value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return SparseRows(starts, _flat(table, "indices") - first, _flat(table, "values"), width)


def dense_blocks(X: Any) -> Iterator[np.ndarray]:
    """The rows of a matrix, some at a time, dense: for what needs all pairs of columns."""
    rows = max(1, BLOCK // max(1, X.shape[1]))
    for start in range(0, X.shape[0], rows):
        block = X[start : start + rows]
        yield block.toarray() if hasattr(block, "toarray") else block


def _flat(table: pyarrow.Table, name: str) -> np.ndarray:
    found: np.ndarray = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return found
