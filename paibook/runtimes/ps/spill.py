"""Rows on disk: what a sparse table does not hold in memory. One file of records of one size.

A file of our own rather than an embedded database: records are of one size and found by number, so nothing is left for
a database to do. It is read and written, not mapped: mapped pages would count as the server's memory.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paibook.errors import RunError

Array = NDArray[Any]
Numbers = NDArray[np.int64]


class RowFile:
    """Records of rows, by number.

    The file has no name, so it is gone when the process is, however that ends.

    Args:
        planes: Arrays of shape (rows, width) whose rows, side by side, are a record; only their types count.
        folder: Where the file lies; the system's folder for temporary files when there is no such folder.
        name: The table's, for messages.
    """

    def __init__(self, planes: Sequence[Array], folder: str, name: str) -> None:
        self._types = [plane.dtype for plane in planes]
        self._ends = np.cumsum([plane.dtype.itemsize * plane.shape[1] for plane in planes])
        self._record = int(self._ends[-1])
        self._folder = folder if Path(folder).is_dir() else tempfile.gettempdir()
        self._name = name
        self._records = 0
        self._file = tempfile.TemporaryFile(dir=self._folder, prefix="paibook-ps-")  # noqa: SIM115  # lives as we do

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return self._records * self._record

    def write(self, numbers: Numbers, planes: Sequence[Array]) -> None:
        """Store rows as records of these numbers.

        Raises:
            RunError: The disk is full.
        """
        order = np.argsort(numbers)
        parts = [np.ascontiguousarray(plane[order]).view(np.uint8) for plane in planes]
        records = np.concatenate(parts, axis=1).reshape(-1).data
        try:
            for first, rows in _runs(numbers[order]):
                rest, offset = records[rows.start * self._record : rows.stop * self._record], first * self._record
                while rest:
                    written = os.pwrite(self._file.fileno(), rest, offset)
                    rest, offset = rest[written:], offset + written
        except OSError as error:
            raise RunError(
                f"table {self._name!r}: cannot write rows that do not fit in memory to {self._folder}: "
                f"{error.strerror}; free space there, or give the servers more --memory"
            ) from error
        self._records = max(self._records, int(numbers.max(initial=-1)) + 1)

    def read(self, numbers: Numbers) -> list[Array]:
        """The rows of some records, an array for each plane."""
        order = np.argsort(numbers)
        records = np.empty((len(numbers), self._record), np.uint8)
        view = records.reshape(-1).data
        for first, rows in _runs(numbers[order]):
            part = view[rows.start * self._record : rows.stop * self._record]
            if os.preadv(self._file.fileno(), [part], first * self._record) != len(part):
                raise RunError(f"table {self._name!r}: its file in {self._folder} is shorter than it was written")
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        parts = np.split(records[back], self._ends[:-1], axis=1)
        return [np.ascontiguousarray(part).view(kind) for part, kind in zip(parts, self._types, strict=True)]

    def close(self) -> None:
        """Give the disk's space back."""
        self._file.close()


def _runs(numbers: Numbers) -> Iterator[tuple[int, slice]]:
    """Neighbours in ascending numbers, which go in one call: the first number, and where they stand.

    >>> [(first, (rows.start, rows.stop)) for first, rows in _runs(np.array([3, 4, 5, 9, 9]))]
    [(3, (0, 3)), (9, (3, 4)), (9, (4, 5))]
    """
    cuts = np.flatnonzero(np.diff(numbers) != 1) + 1
    for start, stop in zip([0, *cuts.tolist()], [*cuts.tolist(), len(numbers)], strict=True):
        if stop > start:
            yield int(numbers[start]), slice(start, stop)
