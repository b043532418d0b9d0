"""Samples: what is handed to ``fit`` on each rank, checked by all ranks together before anything is computed.

A mistake on one rank is raised on all of them, with that rank's number: the others would wait for it otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow

from paibook.algorithms.estimators.matrices import SparseRows, index_range, is_libsvm, libsvm_rows
from paibook.comms.communicator import Communicator
from paibook.data.shards import Shard
from paibook.errors import DataError
from paibook.runtimes.shards import FileShard


@dataclass(frozen=True)
class Form:
    """What all ranks' rows have in common.

    Attributes:
        width: Columns.
        first: The index in LIBSVM rows that is column 0.
    """

    width: int
    first: int = 1


def samples(
    comm: Communicator, X: Any, y: Any = None, labelled: bool = True, known: Form | None = None
) -> tuple[Any, Any, Form]:
    """This rank's matrix ``(n, d)`` of float64, its labels ``(n,)`` where ``labelled``, and their form.

    Args:
        X: Rows as for ``local_rows``, or a shard of them; with ``y`` None a pair ``(X, y)``, or LIBSVM rows.
        y: Labels, a shard of them, or the name of a column of a table ``X``.
        known: The form that rows must have; that of all ranks' rows where None.

    Raises:
        DataError: On every rank, naming the rank whose samples are wrong or unlike the others'.
    """
    X, y = (part.data if isinstance(part, (Shard, FileShard)) else part for part in (X, y))
    if y is None and isinstance(X, tuple) and len(X) == 2:
        X, y = X
    labels: Any = None
    extent: _Extent | None = None
    problem = ""
    try:
        X, y = parted(X, y, labelled)
        X = local_rows(X)
        extent = _extent(X)
        X = X if known is None else shaped(X, known)
        labels = checked_labels(y, extent.rows) if labelled else None
    except DataError as error:
        problem = str(error)
    found = comm.allgather((problem, extent))
    _refuse(found)
    form = known or _form(found)
    return (shaped(X, form) if known is None else X), labels, form


def local_rows(X: Any) -> Any:
    """Rows as a matrix of finite float64: a NumPy array, scipy matrix or LIBSVM table (which stays one).

    Args:
        X: Also a DataFrame or an Arrow table of numbers, a tensor, or lists of numbers.

    Raises:
        DataError: Not ``(n, d)``, not numbers, or NaN or infinite.
    """
    if isinstance(X, (Shard, FileShard)):
        X = X.data
    if isinstance(X, SparseRows):
        return X
    if is_libsvm(X):
        values = X["values"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        _check_finite(values)
        return X
    if hasattr(X, "tocsr"):
        X = X.tocsr().astype(np.float64)
        _check_finite(X.data)
        return X
    if isinstance(X, pyarrow.Table):
        X = X.to_pandas()
    try:
        array = np.asarray(X, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"X must be numbers: {error}") from error
    if array.ndim == 1 and not array.size:
        array = array.reshape(0, 0)
    if array.ndim != 2:
        raise DataError(f"X must have a row for each sample, (n, d); its shape is {array.shape}")
    _check_finite(array)
    return array


def shaped(X: Any, form: Form) -> Any:
    """Rows in the form that all have.

    Raises:
        DataError: Rows of another width.
    """
    if is_libsvm(X):
        found = index_range(X) or (form.first, form.first)
        if found[0] < form.first or found[1] - form.first >= form.width:
            last = form.first + form.width - 1
            raise DataError(f"X has features {found[0]} to {found[1]}; the model knows {form.first} to {last}")
        return libsvm_rows(X, form.width, form.first)
    if not X.shape[0]:
        return np.zeros((0, form.width))
    if X.shape[1] != form.width:
        raise DataError(f"X has {X.shape[1]} features; the model knows {form.width}")
    return X


def parted(X: Any, y: Any, labelled: bool) -> tuple[Any, Any]:
    """Rows and labels where they come in one table."""
    if is_libsvm(X):
        return X, X["label"].to_numpy() if y is None else y
    if isinstance(y, str):
        X = X.to_pandas() if isinstance(X, pyarrow.Table) else X
        if y not in getattr(X, "columns", ()) and len(X):
            raise DataError(f"X has no column {y!r}")
        return (X.drop(columns=y), X[y].to_numpy()) if len(X) else ([], [])
    if y is None and labelled:
        raise DataError("fit needs labels: y, or the name of X's column that holds them")
    return X, y


def checked_labels(y: Any, count: int) -> np.ndarray:
    labels = np.asarray(y)
    if labels.ndim != 1 or len(labels) != count:
        raise DataError(f"y must have one label for each row of X, ({count},); its shape is {labels.shape}")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise DataError("y holds NaN or infinite labels")
    if labels.dtype.kind != "O":
        return labels
    if any(label is None or label != label for label in labels):
        raise DataError("y has missing labels")
    return np.array(labels.tolist())  # texts of a DataFrame


def _check_finite(values: np.ndarray) -> None:
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        where = f" (row {wrong[0][0]}, column {wrong[0][1]}, and {len(wrong) - 1} more)" if values.ndim == 2 else ""
        raise DataError(f"X holds NaN or infinite numbers{where}; drop or fill them")


@dataclass(frozen=True)
class _Extent:
    """Of a rank's rows: how many; columns of a matrix, or least and greatest index of LIBSVM rows."""

    rows: int
    width: int | None
    indices: tuple[int, int] | None = None


def _extent(X: Any) -> _Extent:
    return _Extent(X.num_rows, None, index_range(X)) if is_libsvm(X) else _Extent(X.shape[0], X.shape[1])


def _refuse(ranks: list[tuple[str, _Extent | None]]) -> None:
    for rank, (problem, _) in enumerate(ranks):
        if problem:
            raise DataError(f"rank {rank}: {problem}" if len(ranks) > 1 else problem)


def _form(ranks: list[tuple[str, _Extent | None]]) -> Form:
    """What all ranks' rows have in common; refuses what they do not."""
    known = {rank: extent for rank, (_, extent) in enumerate(ranks) if extent is not None and extent.rows}
    if not known:
        raise DataError("there are no samples: the shard of every rank is empty")
    widths = {rank: extent.width for rank, extent in known.items()}
    if len(set(widths.values())) > 1:
        shown = ", ".join(f"rank {rank} has {width or 'LIBSVM rows'}" for rank, width in widths.items())
        raise DataError(f"X must have the same number of features on all ranks; {shown}")
    width = next(iter(widths.values()))
    if width is not None:
        return Form(width)
    ranges = [extent.indices for extent in known.values() if extent.indices is not None]
    if not ranges:
        raise DataError("X has no features: all its rows are empty")
    # As scikit-learn reads them: files count from 1, unless an index is 0.
    first = 0 if any(lowest == 0 for lowest, _ in ranges) else 1
    return Form(max(highest for _, highest in ranges) + 1 - first, first)
