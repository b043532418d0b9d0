"""Parts: the files of a dataset, each written whole by one task under a name of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.csv
import pyarrow.parquet

from paibook.data.frames import in_schema
from paibook.data.part_files import Part, open_part, writing
from paibook.data.sinks import PartSink, part_name

__all__ = ["OUTPUT_FORMATS", "Part", "PartWriter", "rewrite", "write_empty"]

OUTPUT_FORMATS = {".parquet": "parquet", ".jsonl": "jsonl", ".csv": "csv", "": "parquet"}


@dataclass(slots=True)
class PartWriter:
    """Writes the parts of one task.

    Args:
        folder: The staging folder; it must exist, here too.
        format: ``parquet``, ``jsonl`` or ``csv``.
        number: The partition.
        partition_by: Columns that become folders, ``year=2024/part-...``.
        buffer: Bytes of columns gathered before they are written.
    """

    folder: Path
    format: str
    number: int
    partition_by: tuple[str, ...] = ()
    buffer: int = 32 << 20

    def open(self) -> PartSink:
        """Begin an attempt; its files appear as records come and are parts once it is closed."""
        return PartSink(self.folder, self.format, self.number, self.partition_by, self.buffer)


def rewrite(folder: Path, format: str, part: Part, schema: pyarrow.Schema) -> Part:
    """Write a part again in the schema that all parts share, a piece at a time.

    Raises:
        DataError: The folder is full, or the part is gone.
    """
    old = folder / part.name
    path = old.with_name(part_name(part.number, int(old.name.split("-")[2]), format))
    with writing(old):
        pieces = _read_parquet(old) if format == "parquet" else _read_csv(old, part.schema)
        size = _write(path, format, schema, (in_schema(piece, schema) for piece in pieces))
    return replace(part, name=path.relative_to(folder).as_posix(), schema=schema, size=size)


def write_empty(folder: Path, format: str, schema: pyarrow.Schema | None = None) -> Part:
    """A part without records, so that an empty dataset can still be read.

    Args:
        folder, format: As for ``PartWriter``.
        schema: Its columns; none where None.
    """
    path = folder / part_name(0, 0, format)
    if format == "parquet" or (format == "csv" and schema is not None):
        schema = pyarrow.schema([]) if schema is None else schema
        return Part(path.name, 0, 0, schema, _write(path, format, schema, [schema.empty_table()]))
    return Part(path.name, 0, 0, None, _write(path, format, None, []))


def _write(path: Path, format: str, schema: pyarrow.Schema | None, contents: Iterable[Any]) -> int:
    file = open_part(path, format, schema)
    try:
        for content in contents:
            file.write(content)
        return file.close()
    except BaseException:
        file.abort()
        raise


def _read_parquet(path: Path) -> Iterator[pyarrow.Table]:
    with pyarrow.parquet.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)


def _read_csv(path: Path, schema: pyarrow.Schema | None) -> Iterator[pyarrow.Table]:
    types = {field.name: field.type for field in schema or ()}
    with pyarrow.csv.open_csv(path, convert_options=pyarrow.csv.ConvertOptions(column_types=types)) as batches:
        for batch in batches:
            yield pyarrow.Table.from_batches([batch])
