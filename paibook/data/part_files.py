"""The file of a part, written as its content comes: Parquet row group by row group, CSV and JSON Lines by lines."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow
import pyarrow.csv
import pyarrow.parquet
from pyarrow import types

from paibook.errors import DataError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Part:
    """A finished file in a dataset's staging folder.

    Attributes:
        name: Its path within the folder, different for every attempt.
        number: Which partition of the shuffle it holds.
        rows: Records in it.
        schema: Of its columns; None for JSON Lines.
        size: Of the file, in bytes; None where it was not noted.
        partitions: Types of the partition columns, whose values stand in ``name``; None without such.
    """

    name: str
    number: int
    rows: int
    schema: pyarrow.Schema | None
    size: int | None = None
    partitions: pyarrow.Schema | None = None


class PartFile(Protocol):
    """A part's file while it is written.

    Attributes:
        path: Where.
        schema: Of its columns; None for JSON Lines.
        rows: Records written so far.
    """

    path: Path
    schema: pyarrow.Schema | None
    rows: int

    def write(self, content: Any) -> None:
        """Write a table in the file's schema, or a list of JSON texts.

        Raises:
            DataError: The disk is full, or the folder is gone.
        """

    def close(self) -> int:
        """Finish the file, on disk for certain; returns its size in bytes.

        Raises:
            DataError: As ``write``.
        """

    def abort(self) -> None:
        """Close and remove the file."""


class _TableFile:
    def __init__(self, path: Path, schema: pyarrow.Schema) -> None:
        self.path, self.schema, self.rows = path, schema, 0
        with writing(path):
            self._writer = self._open()

    def _open(self) -> Any:
        # Floating-point numbers seldom repeat: a dictionary of them costs time and space.
        dictionary = [field.name for field in self.schema if not types.is_floating(field.type)]
        nested = any(types.is_nested(field.type) for field in self.schema)
        return pyarrow.parquet.ParquetWriter(self.path, self.schema, use_dictionary=nested or dictionary or False)

    def write(self, content: pyarrow.Table) -> None:
        with writing(self.path, content.nbytes):
            self._writer.write_table(content)
        self.rows += content.num_rows

    def close(self) -> int:
        with writing(self.path):
            self._writer.close()
            return _sync(self.path)

    def abort(self) -> None:
        with contextlib.suppress(OSError, pyarrow.ArrowException):
            self._writer.close()
        self.path.unlink(missing_ok=True)


class _CsvFile(_TableFile):
    def _open(self) -> Any:
        # A writer whose close fails keeps its file open, and with it the space on a full disk: so the file is ours.
        self._sink = pyarrow.OSFile(str(self.path), "wb")
        return pyarrow.csv.CSVWriter(self._sink, self.schema)

    def close(self) -> int:
        with writing(self.path):
            self._writer.close()
            self._sink.close()
            return _sync(self.path)

    def abort(self) -> None:
        super().abort()
        with contextlib.suppress(OSError, pyarrow.ArrowException):
            self._sink.close()


class _LineFile:
    def __init__(self, path: Path) -> None:
        self.path, self.schema, self.rows = path, None, 0
        with writing(path):
            self._file = path.open("w", encoding="utf-8", newline="\n", buffering=1 << 20)

    def write(self, content: list[str]) -> None:
        with writing(self.path):
            self._file.writelines(content)
        self.rows += len(content)

    def close(self) -> int:
        with writing(self.path):
            self._file.close()
            return _sync(self.path)

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        self.path.unlink(missing_ok=True)


def open_part(path: Path, format: str, schema: pyarrow.Schema | None) -> PartFile:
    """Create a part's file.

    Raises:
        DataError: The folder is not on a file system this worker shares, is full or may not be written to.
    """
    if schema is None:
        return _LineFile(path)
    return (_TableFile if format == "parquet" else _CsvFile)(path, schema)


@contextlib.contextmanager
def writing(path: Path, needed: int = 0) -> Iterator[None]:
    """Turn what the system says of a file into an error for the person at the notebook.

    Args:
        path: The file.
        needed: Bytes about to be written, before compression; 0 where that is not known.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise not_shared(path.parent) from error
    except (OSError, pyarrow.ArrowException) as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise DataError(_full(path, needed, error)) from error
        raise DataError(f"cannot write {path}: {error}") from error


def not_shared(folder: Path) -> DataError:
    """The error of a staging folder that this worker does not see."""
    return DataError(
        f"{folder} is not there on {socket.gethostname()}: an output folder must lie on a file system that "
        "the notebook and all workers share"
    )


def readable(size: float) -> str:
    """A number of bytes for people.

    >>> readable(1234567)
    '1.23 MB'
    """
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if unit != "bytes" else f"{size} bytes"
        size /= 1000
    return f"{size:.3g} GB"


def _full(path: Path, needed: int, error: OSError) -> str:
    written = path.stat().st_size if path.exists() else 0
    more = f", up to {readable(needed)} more were to follow" if needed else ""
    free = readable(shutil.disk_usage(path.parent).free)
    return (
        f"cannot write {path}: {os.strerror(error.errno or 0)}: {readable(written)} of it are written{more}, "
        f"{free} are free there; make room, or choose an output folder on another disk"
    )


def _sync(path: Path) -> int:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size
