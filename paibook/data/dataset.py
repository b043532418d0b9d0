"""A dataset: a folder of part files that appears whole or not at all."""

from __future__ import annotations

import ctypes
import io
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.csv
import pyarrow.parquet

from paibook.data.frames import frame
from paibook.data.parts import OUTPUT_FORMATS, Part, PartWriter, write_empty
from paibook.errors import DataError, PlanError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


@dataclass(frozen=True)
class Dataset:
    """What a run wrote.

    Attributes:
        path: The folder.
        rows: Records in it.
        bytes: Size of its files.
    """

    path: Path
    rows: int
    bytes: int

    def read(self) -> Any:
        """All records as a pandas DataFrame.

        Raises:
            DataError: The folder is gone, or not as the run left it.
        """
        format = output_format(str(self.path))
        try:
            files = [file for file in sorted(self.path.glob(f"*.{format}")) if file.stat().st_size]
            if format == "jsonl":
                return frame([json.loads(line) for file in files for line in file.open(encoding="utf-8")])
            if not files:
                return frame([])
            return (_read_csv(files) if format == "csv" else _read_parquet(files)).to_pandas()
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise DataError(f"cannot read {self.path}: {error}") from error

    def __repr__(self) -> str:
        return f"Dataset({str(self.path)!r}: {self.rows:,} rows, {_readable(self.bytes)})"


def output_format(path: str) -> str:
    """The format a dataset's path asks for by its extension; Parquet where it has none.

    Raises:
        PlanError: An extension paibook does not write.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in OUTPUT_FORMATS:
        raise PlanError(f"cannot write {path!r}: an output path ends in .parquet, .jsonl or .csv")
    return OUTPUT_FORMATS[suffix]


def check_target(path: str, overwrite: bool) -> Path:
    """The folder a dataset may be written to, as an absolute path.

    Raises:
        DataError: It exists and may not be replaced, its parent does not exist, or it is not on a local path.
        PlanError: An extension paibook does not write.
    """
    output_format(path)
    if "://" in path and not path.startswith("file://"):
        raise DataError(f"cannot write {path!r}: an output is a path on a file system that all workers share")
    target = Path(os.path.abspath(Path(path.removeprefix("file://")).expanduser()))
    if os.path.lexists(target) and not overwrite:
        raise DataError(f"the output {target} exists; choose another, or replace it with --overwrite")
    if not target.parent.is_dir():
        raise DataError(f"the folder {target.parent} of the output {target.name!r} does not exist; create it first")
    return target


def _read_parquet(files: Sequence[Path]) -> pyarrow.Table:
    return pyarrow.concat_tables(map(pyarrow.parquet.read_table, files))


def _read_csv(files: Sequence[Path]) -> pyarrow.Table:
    # As one text: types are guessed from what is read, and must not differ from part to part.
    first, *others = (file.read_bytes() for file in files)
    bodies = (content.partition(b"\n")[2] for content in others)
    return pyarrow.csv.read_csv(io.BytesIO(first + b"".join(bodies)))


class Staging:
    """A folder beside the target in which tasks write parts, until one rename shows them all.

    Tasks write in ``attempts``; of what they leave there only the parts they returned are committed, so an attempt
    that was repeated, or was cut off, leaves no record behind.

    Args:
        target: As ``check_target`` gives it.
        run: Makes the name unique.
        overwrite: Whether the target may be replaced.
    """

    def __init__(self, target: Path, run: str, overwrite: bool = False) -> None:
        self.target = target
        self.format = output_format(str(target))
        self.root = target.parent / f".{target.name}.staging-{run}"
        self.attempts = self.root / "attempts"
        self._complete = self.root / "complete"
        self._overwrite = overwrite

    def __enter__(self) -> Staging:
        try:
            self.attempts.mkdir(parents=True)
            self._complete.mkdir()
        except OSError as error:
            raise DataError(f"cannot write to {self.target.parent}: {error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def writer(self, number: int) -> PartWriter:
        """What the task of a partition writes with."""
        return PartWriter(self.attempts, self.format, number)

    def commit(self, parts: Sequence[Part]) -> Dataset:
        """Show exactly these parts as the target; until then an old target stays as it was.

        Raises:
            DataError: A part is missing here, or the target appeared meanwhile.
        """
        parts = list(parts) or [write_empty(self.attempts, self.format)]
        for part in parts:
            self._collect(part)
        size = sum(file.stat().st_size for file in self._complete.iterdir())
        _sync_folder(self._complete)
        self._show()
        _sync_folder(self.target.parent)
        return Dataset(self.target, sum(part.rows for part in parts), size)

    def _collect(self, part: Part) -> None:
        try:
            os.rename(self.attempts / part.name, self._complete / part.name)
        except FileNotFoundError as error:
            raise DataError(
                f"a worker wrote {part.name}, but it is not in {self.attempts} here: an output folder must lie on a "
                "file system that the notebook and all workers share"
            ) from error

    def _show(self) -> None:
        if not os.path.lexists(self.target):
            os.rename(self._complete, self.target)
        elif not self._overwrite:
            raise DataError(f"the output {self.target} appeared while the run was writing; it was left as it is")
        elif not _exchange(self._complete, self.target):
            self._swap()

    def _swap(self) -> None:
        """Two renames where the system cannot exchange folders; the old one is put back when the second fails."""
        old = self.root / "old"
        os.rename(self.target, old)
        try:
            os.rename(self._complete, self.target)
        except OSError:
            os.rename(old, self.target)
            raise


def _exchange(one: Path, other: Path) -> bool:
    """Swap two paths atomically (Linux's renameat2); False where that cannot be done."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    return libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _readable(size: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if unit != "bytes" else f"{size} bytes"
        size /= 1000
    return f"{size:.3g} GB"
