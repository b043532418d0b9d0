"""Sparse rows by key, and batches of them that know which keys they need."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow
from numpy.typing import NDArray

from paibook.algorithms.estimators.matrices import SparseRows, is_libsvm
from paibook.algorithms.estimators.samples import checked_labels, local_rows, parted
from paibook.data.shards import Shard
from paibook.errors import DataError
from paibook.runtimes.shards import FileShard

Keys = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Some rows, over the keys that occur in them.

    Attributes:
        keys: Those keys, once each, ``(u,)``.
        x: The rows, ``(n, u)``: column i is that of ``keys[i]``.
        shares: For each key, how much of all its entries in this worker's rows the batch holds, ``(u,)``.
    """

    keys: Keys
    x: SparseRows
    shares: NDArray[np.float64]

    @cached_property
    def squares(self) -> SparseRows:
        """The rows with each entry squared."""
        return SparseRows(self.x.starts, self.x.columns, self.x.values**2, self.x.shape[1])


class Rows:
    """A worker's rows: keys and their values, compressed (CSR).

    Args:
        starts: Where each row's entries begin, and the last one's end, ``(n + 1,)``.
        keys: Of each entry, int64.
        values: Of each entry, float64.
        width: Keys are below it; None where they may be any.
    """

    def __init__(self, starts: np.ndarray, keys: np.ndarray, values: np.ndarray, width: int | None = None) -> None:
        self.width = width
        self._starts, self._values = starts, values
        self.keys, self._places, self._counts = np.unique(keys, return_inverse=True, return_counts=True)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def batch(self, order: np.ndarray) -> Batch:
        """The rows of the given numbers, in their order."""
        lengths = np.diff(self._starts)[order]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        entries = np.repeat(self._starts[order] - starts[:-1], lengths) + np.arange(starts[-1])
        used, columns, counts = np.unique(self._places[entries], return_inverse=True, return_counts=True)
        x = SparseRows(starts, columns, self._values[entries], len(used))
        return Batch(self.keys[used], x, counts / self._counts[used])


def keyed_rows(X: Any, bounded: bool = True) -> Rows:
    """Rows for an estimator.

    Args:
        X: An array, scipy matrix or DataFrame of numbers ``(n, d)``, whose keys are its columns' numbers; an Arrow
            table of numbers, the same, but of no known width, since another worker may have no rows; a table of LIBSVM
            rows, whose keys are its indices; ``(indices, values, offsets)``, where row i has the entries from
            ``offsets[i]`` to ``offsets[i + 1]`` and keys are any int64; or a shard of one.
        bounded: False: an array's width is not that of other workers' rows.

    Raises:
        DataError: Not numbers, NaN or infinite, or arrays that do not fit together.
    """
    if isinstance(X, tuple) and len(X) == 3:
        return _triple(*map(np.asarray, X))
    bounded = bounded and not isinstance(X, pyarrow.Table)
    X = local_rows(X)
    if is_libsvm(X):
        indices, values = X["indices"].combine_chunks(), X["values"].combine_chunks()
        starts = np.concatenate([[0], np.cumsum(indices.value_lengths().to_numpy(zero_copy_only=False))])
        flat = (part.flatten().to_numpy(zero_copy_only=False) for part in (indices, values))
        keys, numbers = flat
        return Rows(starts.astype(np.int64), keys.astype(np.int64), numbers.astype(np.float64))
    if hasattr(X, "tocsr"):
        X.sum_duplicates()
        return Rows(X.indptr.astype(np.int64), X.indices.astype(np.int64), X.data, X.shape[1])
    if isinstance(X, SparseRows):
        return Rows(X.starts, X.columns, X.values, X.shape[1])
    n, width = X.shape
    return Rows(np.arange(n + 1) * width, np.tile(np.arange(width), n), X.ravel(), width if bounded else None)


def dealt(X: Any, y: Any) -> tuple[Any, Any]:
    """Rows and labels, ``y`` None where there are none, out of what ``fit`` is given.

    Of a shard they are those of its epoch 0, which is shuffled: labels in sorted rows would be alike on a worker.
    """
    X, y = (part.epoch(0) if isinstance(part, (Shard, FileShard)) else part for part in (X, y))
    if y is None and isinstance(X, tuple) and len(X) == 2:
        X, y = X
    return X, y


def labelled(X: Any, y: Any) -> tuple[Rows, np.ndarray]:
    """Rows and a label for each, out of what ``fit`` is given.

    Raises:
        DataError: As ``keyed_rows``; labels are missing, or not one for each row.
    """
    X, y = dealt(X, y)
    if isinstance(X, pyarrow.Table) and not X.num_columns:  # none of the files' splits is this worker's
        return Rows(np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0)), np.zeros(0)
    arrow = isinstance(X, pyarrow.Table)
    if not (isinstance(X, tuple) and len(X) == 3):
        X, y = parted(X, y, labelled=True)
    elif y is None:
        raise DataError("fit needs labels y beside (indices, values, offsets)")
    rows = keyed_rows(X, bounded=not arrow)
    return rows, checked_labels(y, len(rows))


def as_table(indices: Any, values: Any, offsets: Any, labels: Any) -> pyarrow.Table:
    """Rows of any keys and their labels as a table of LIBSVM rows, which can be dealt out."""
    rows = _triple(*map(np.asarray, (indices, values, offsets)))
    lists = (
        pyarrow.LargeListArray.from_arrays(np.asarray(offsets, np.int64), np.asarray(part))
        for part in (indices, values)
    )
    return pyarrow.table([checked_labels(labels, len(rows)), *lists], ["label", "indices", "values"])


def _triple(indices: np.ndarray, values: np.ndarray, offsets: np.ndarray) -> Rows:
    if any(part.ndim != 1 for part in (indices, values, offsets)) or len(indices) != len(values):
        shapes = ", ".join(str(part.shape) for part in (indices, values, offsets))
        raise DataError(f"(indices, values, offsets) are of shapes (m,), (m,) and (n + 1,); got {shapes}")
    if indices.dtype.kind not in "iu" or offsets.dtype.kind not in "iu":
        raise DataError(f"indices and offsets are whole numbers; got {indices.dtype} and {offsets.dtype}")
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(indices) or (np.diff(offsets) < 0).any():
        raise DataError(
            f"offsets begin with 0, never fall, and end with the number of entries, {len(indices)}; "
            "row i has the entries from offsets[i] to offsets[i + 1]"
        )
    if not np.isfinite(values).all():
        raise DataError("values holds NaN or infinite numbers; drop or fill them")
    return Rows(offsets.astype(np.int64), indices.astype(np.int64), values.astype(np.float64))
