"""Parts: the files of a dataset, each written whole by one task under a name of its own."""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.csv
import pyarrow.parquet

from paibook.data.frames import concatenated, in_schema, table
from paibook.errors import DataError

OUTPUT_FORMATS = {".parquet": "parquet", ".jsonl": "jsonl", ".csv": "csv", "": "parquet"}
ROWS = 100_000  # records turned into columns at once


@dataclass(frozen=True, slots=True)
class Part:
    """A finished file in a dataset's staging folder.

    Attributes:
        name: Its file name, different for every attempt.
        number: Which partition it holds.
        rows: Records in it.
        schema: Of its columns; None for JSON Lines.
    """

    name: str
    number: int
    rows: int
    schema: pyarrow.Schema | None


@dataclass(slots=True)
class PartWriter:
    """Writes one part: records are gathered as columns, the file appears when it is closed.

    Args:
        folder: The staging folder; it must exist, here too.
        format: ``parquet``, ``jsonl`` or ``csv``.
        number: The partition.
    """

    folder: Path
    format: str
    number: int

    def write(self, chunks: list[Any], rows: int) -> Part | None:
        """Write what ``gather`` made of the records; None when there were none.

        Raises:
            DataError: The folder is not on a file system this worker shares, or is full.
        """
        if not rows:
            return None
        part = _named(self.folder, self.format, self.number)
        if self.format == "jsonl":
            _write(part, lambda path: path.write_text("".join(chunks), encoding="utf-8"))
            return Part(part.name, self.number, rows, None)
        joined = concatenated(chunks, f"partition {self.number}")
        _write_table(part, joined, self.format)
        return Part(part.name, self.number, rows, joined.schema)

    def gather(self, records: list[Any]) -> Any:
        """Some records in the compact form that ``write`` takes."""
        if self.format == "jsonl":
            return "".join(map(_json_line, records))
        return table(records, f"partition {self.number}")


def rewrite(folder: Path, format: str, part: Part, schema: pyarrow.Schema) -> Part:
    """Write a part again in the schema that all parts share."""
    old = folder / part.name
    content = pyarrow.parquet.read_table(old) if format == "parquet" else _read_csv(old, part.schema)
    new = _named(folder, format, part.number)
    _write_table(new, in_schema(content, schema), format)
    return Part(new.name, part.number, part.rows, schema)


def write_empty(folder: Path, format: str) -> Part:
    """A part without records or columns, so that an empty dataset can still be read."""
    path = _named(folder, format, 0)
    if format == "parquet":
        _write_table(path, pyarrow.table({}), format)
        return Part(path.name, 0, 0, pyarrow.schema([]))
    _write(path, lambda p: p.write_text(""))
    return Part(path.name, 0, 0, None)


def _named(folder: Path, format: str, number: int) -> Path:
    return folder / f"part-{number:05d}-{uuid.uuid4().hex[:12]}.{format}"


def _read_csv(path: Path, schema: pyarrow.Schema | None) -> pyarrow.Table:
    types = {field.name: field.type for field in schema or ()}
    return pyarrow.csv.read_csv(path, convert_options=pyarrow.csv.ConvertOptions(column_types=types))


def _write_table(path: Path, content: pyarrow.Table, format: str) -> None:
    if format == "parquet":
        _write(path, lambda p: pyarrow.parquet.write_table(content, p))
    else:
        _write(path, lambda p: pyarrow.csv.write_csv(content, p))


def _write(path: Path, action: Callable[[Path], Any]) -> None:
    try:
        action(path)
        with path.open("rb") as file:
            os.fsync(file.fileno())
    except FileNotFoundError as error:
        raise DataError(
            f"{path.parent} is not there on {socket.gethostname()}: an output folder must lie on a file system that "
            "the notebook and all workers share"
        ) from error
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"cannot write {path}: {error}") from error


def _json_line(record: Any) -> str:
    try:
        return json.dumps(record, ensure_ascii=False) + "\n"
    except (TypeError, ValueError) as error:
        raise DataError(f"a record cannot be written as JSON ({error}): {record!r:.80}") from error
