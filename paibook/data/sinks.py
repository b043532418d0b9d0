"""Sinks: a task's records on their way into part files, in bounded memory."""

from __future__ import annotations

import json
import uuid
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import types

from paibook.data.frames import common_schema, concatenated, in_schema, table
from paibook.data.part_files import Part, PartFile, not_shared, open_part, writing
from paibook.data.partitions import split_records, split_table
from paibook.errors import DataError

OPEN_FILES = 500  # at once; processes may commonly open 1024
_OVERHEAD = 60  # bytes that Python needs for a text beside its characters
_encode = json.JSONEncoder(ensure_ascii=False).encode


class PartSink:
    """Writes one task's parts.

    Records are gathered until they make a good row group, then written. A part file has one schema; where a later
    chunk does not fit (whole numbers, then fractions) another file is begun, and the driver unifies them. With
    partition columns each folder has files of its own; of too many open ones the least recently used is closed.

    Args:
        folder: The staging folder; it must exist, here too.
        format: ``parquet``, ``jsonl`` or ``csv``.
        number: The partition of the shuffle.
        partition_by: Columns that become folders.
        buffer: Bytes gathered before they are written.
    """

    def __init__(
        self, folder: Path, format: str, number: int, partition_by: tuple[str, ...] = (), buffer: int = 32 << 20
    ) -> None:
        self._folder, self._format, self._number = folder, format, number
        self._by, self._buffer = partition_by, buffer
        self._place = f"partition {number}"
        self._partitions: pyarrow.Schema | None = None
        self._pending: dict[str, list[Any]] = {}  # of each folder: tables, or lines
        self._pending_bytes = 0
        self._open: OrderedDict[str, PartFile] = OrderedDict()
        self._parts: list[Part] = []
        self._files = 0

    def add(self, records: list[Any]) -> None:
        """Take some records.

        Raises:
            DataError: A column without a common type, a record that is no JSON, a missing partition column, a full
                disk.
        """
        if not records:
            return
        if self._format == "jsonl":
            self._add_lines(records)
        else:
            self.add_table(table(records, self._place))

    def add_table(self, content: pyarrow.Table) -> None:
        """Take the rows of a table.

        Raises:
            DataError: As ``add``.
        """
        if not content.num_rows:
            return
        if self._format == "jsonl":
            self._add_lines(_json_rows(content))
            return
        content = _plain(content)
        for folder, rows in self._split(content):
            self._pending.setdefault(folder, []).append(rows)
        self._note(content.nbytes)

    def close(self) -> list[Part]:
        """Finish all files, on disk for certain.

        Returns:
            The parts; none where no record came.

        Raises:
            DataError: A full disk.
        """
        self._flush()
        while self._open:
            self._finish(next(iter(self._open)))
        return self._parts

    def abort(self) -> None:
        """Remove all that was written."""
        for file in self._open.values():
            file.abort()
        for part in self._parts:
            (self._folder / part.name).unlink(missing_ok=True)
        self._open.clear()
        self._parts = []
        self._pending = {}

    def _split(self, content: pyarrow.Table) -> Iterable[tuple[str, pyarrow.Table]]:
        if not self._by:
            return [("", content)]
        schema, split = split_table(content, self._by, self._place)
        self._widen(schema)
        return split

    def _add_lines(self, records: list[Any]) -> None:
        split: Iterable[tuple[str, list[Any]]] = [("", records)]
        if self._by:
            schema, split = split_records(records, self._by, self._place)
            self._widen(schema)
        for folder, some in split:
            lines = list(map(json_line, some))
            self._pending.setdefault(folder, []).extend(lines)
            self._note(sum(map(len, lines)) + _OVERHEAD * len(lines))

    def _note(self, size: int) -> None:
        self._pending_bytes += size
        if self._pending_bytes >= self._buffer:
            self._flush()

    def _widen(self, schema: pyarrow.Schema) -> None:
        known = self._partitions
        self._partitions = schema if known is None else common_schema([known, schema], self._place)

    def _flush(self) -> None:
        pending, self._pending, self._pending_bytes = self._pending, {}, 0
        for folder, gathered in pending.items():
            if self._format == "jsonl":
                self._file(folder, None).write(gathered)
                continue
            content = concatenated(gathered, self._place)
            file = self._file(folder, content.schema)
            assert file.schema is not None
            file.write(content if content.schema.equals(file.schema) else in_schema(content, file.schema))

    def _file(self, folder: str, schema: pyarrow.Schema | None) -> PartFile:
        """The open file of a folder that holds the schema, or a new one."""
        file = self._open.get(folder)
        if file is not None and file.schema is not None and schema is not None:
            schema = common_schema([file.schema, schema], self._place)
            if not schema.equals(file.schema):
                self._finish(folder)
                file = None
        if file is None:
            if len(self._open) >= OPEN_FILES:
                self._finish(next(iter(self._open)))
            file = self._open[folder] = open_part(self._path(folder), self._format, schema)
        self._open.move_to_end(folder)
        return file

    def _path(self, folder: str) -> Path:
        path = self._folder / folder / part_name(self._number, self._files, self._format)
        self._files += 1
        if folder:
            if not self._folder.is_dir():  # made here, it would hide that this worker does not share it
                raise not_shared(self._folder)
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _finish(self, folder: str) -> None:
        file = self._open[folder]
        size = file.close()
        del self._open[folder]
        name = file.path.relative_to(self._folder).as_posix()
        self._parts.append(Part(name, self._number, file.rows, file.schema, size, self._partitions))


def part_name(number: int, sequence: int, format: str) -> str:
    """A file name, different for every attempt; names sort as the records were written."""
    return f"part-{number:05d}-{sequence:04d}-{uuid.uuid4().hex[:12]}.{format}"


def json_line(record: Any) -> str:
    """A record as a line of JSON.

    Raises:
        DataError: It holds what JSON does not.
    """
    try:
        return _encode(record) + "\n"
    except (TypeError, ValueError) as error:
        raise DataError(f"a record cannot be written as JSON ({error}): {record!r:.80}") from error


def _json_rows(content: pyarrow.Table) -> list[dict[str, Any]]:
    """Rows as JSON may have them: points in time as text, decimals as numbers."""
    columns = {field.name: _json_values(content[field.name]) for field in content.schema}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _json_values(column: pyarrow.ChunkedArray) -> list[Any]:
    kind = column.type
    if types.is_date(kind) or types.is_time(kind) or types.is_timestamp(kind):
        return [None if value is None else value.isoformat() for value in column.to_pylist()]
    if types.is_decimal(kind):
        number = float if kind.scale > 0 else int
        return [None if value is None else number(value) for value in column.to_pylist()]
    values: list[Any] = column.to_pylist()
    return values


def _plain(content: pyarrow.Table) -> pyarrow.Table:
    """Without a DataFrame's metadata and categories, which differ from chunk to chunk."""
    schema = pyarrow.schema(
        [
            field.with_type(field.type.value_type) if types.is_dictionary(field.type) else field
            for field in content.schema
        ]
    ).remove_metadata()
    return content if content.schema.equals(schema, check_metadata=True) else content.cast(schema)
