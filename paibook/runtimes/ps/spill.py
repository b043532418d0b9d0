"""Rows on disk: what a sparse table does not hold in memory. One file of records of one size, mapped into memory.

A file of our own rather than an embedded database: records are of one size and found by number, so nothing is left
for a database to do. The pages are given back to the system after each use, which keeps them in its cache while it can.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
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
        # A width of its own for each plane: fields of a NumPy record know no types from elsewhere, so they are bytes.
        widths = [plane.dtype.itemsize * plane.shape[1] for plane in planes]
        self._ends = np.cumsum(widths)
        self._record = int(self._ends[-1])
        self._folder = folder if Path(folder).is_dir() else None
        self._name = name
        self._file = tempfile.TemporaryFile(dir=self._folder, prefix="paibook-ps-")  # noqa: SIM115  # it lives as long as we do
        self._map: mmap.mmap | None = None
        self._bytes = np.empty((0, self._record), np.uint8)

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return int(self._bytes.nbytes)

    def grow(self, records: int) -> None:
        """Have room for so many records.

        Raises:
            RunError: The disk is full.
        """
        size = records * self._record
        try:
            # Writing to a mapped page that the disk has no room for would kill the process; so room comes first.
            os.posix_fallocate(self._file.fileno(), 0, size)
        except OSError as error:
            where = self._folder or tempfile.gettempdir()
            raise RunError(
                f"table {self._name!r}: cannot have {size / 2**20:.0f} MiB in {where} for rows that do not fit in "
                f"memory: {error.strerror}; free space there, or give the servers more --memory"
            ) from error
        self._map = mmap.mmap(self._file.fileno(), size)
        self._map.madvise(mmap.MADV_RANDOM)
        self._bytes = np.frombuffer(self._map, np.uint8).reshape(-1, self._record)

    def write(self, numbers: Numbers, planes: Sequence[Array]) -> None:
        """Store rows as records of these numbers."""
        parts = [np.ascontiguousarray(plane).view(np.uint8) for plane in planes]
        self._bytes[numbers] = np.concatenate(parts, axis=1)
        self._release()

    def read(self, numbers: Numbers) -> list[Array]:
        """The rows of some records, an array for each plane."""
        records = self._bytes[numbers]
        self._release()
        parts = np.split(records, self._ends[:-1], axis=1)
        return [np.ascontiguousarray(part).view(kind) for part, kind in zip(parts, self._types, strict=True)]

    def close(self) -> None:
        """Give the disk's space back."""
        self._bytes = np.empty((0, self._record), np.uint8)
        self._map = None
        self._file.close()

    def _release(self) -> None:
        # Pages that were touched count as this process's memory until they are given back.
        if self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)
