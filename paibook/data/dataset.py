"""A dataset: a folder of part files, written by a run and read back whole or in part."""

from __future__ import annotations

import html
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow
import pyarrow.csv
import pyarrow.parquet

from paibook.data.frames import concatenated, frame
from paibook.data.part_files import readable
from paibook.data.partitions import types_of, values_of, with_values
from paibook.data.parts import OUTPUT_FORMATS
from paibook.errors import DataError, PlanError

HEAD = 5  # rows that a notebook shows


@dataclass(frozen=True)
class Dataset:
    """What a run wrote.

    Attributes:
        path: The folder.
        rows: Records in it; ``len(dataset)``.
        bytes: Size of its files.
        partitions: Types of the columns that stand in folder names; guessed from the names where None.
    """

    path: Path
    rows: int
    bytes: int
    partitions: pyarrow.Schema | None = field(default=None, compare=False)

    def read(self, columns: Sequence[str] | None = None) -> Any:
        """All records, or some columns of them, as a pandas DataFrame.

        Raises:
            DataError: The folder is gone, or not as the run left it, or has no such column.
        """
        try:
            found = self._selected(self._files(), columns)
            return found if columns is None else found[list(columns)]
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise DataError(f"cannot read {self.path}: {error}") from error
        except KeyError as error:
            raise DataError(f"cannot read {self.path}: {error.args[0]}") from error

    def head(self, n: int = HEAD) -> Any:
        """The first records as a pandas DataFrame; reads no more of the files than it needs.

        Raises:
            DataError: As ``read``.
        """
        if n < 0:
            raise PlanError(f"head(n) takes a number of rows, 0 or more; got {n}")
        try:
            return self._head(n)
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise DataError(f"cannot read {self.path}: {error}") from error

    def __len__(self) -> int:
        return self.rows

    def __repr__(self) -> str:
        return f"Dataset({str(self.path)!r}: {self.rows:,} rows, {readable(self.bytes)})"

    def _repr_html_(self) -> str:
        try:
            rows = self.head().to_html(max_cols=20, notebook=True)
        except DataError as error:  # deleted since, say: still worth its name
            rows = f"<p>{html.escape(str(error))}</p>"
        return f"<p><code>{html.escape(repr(self))}</code></p>{rows}"

    def _files(self) -> list[Path]:
        if not self.path.is_dir():
            raise DataError(f"cannot read {self.path}: the folder is not there")
        suffix = output_format(str(self.path))
        return [file for file in sorted(self.path.rglob(f"*.{suffix}")) if file.stat().st_size]

    def _values(self, file: Path) -> dict[str, str | None]:
        return values_of(PurePosixPath(file.relative_to(self.path).as_posix()))

    def _types(self, files: Sequence[Path]) -> pyarrow.Schema:
        return self.partitions if self.partitions is not None else types_of([self._values(file) for file in files])

    def _selected(self, files: Sequence[Path], columns: Sequence[str] | None) -> Any:
        if not files:
            return frame([])
        types = self._types(files)
        format = output_format(str(self.path))
        if format == "jsonl":
            return frame([record for file in files for record in self._records(file, types)])
        if format == "csv":
            tables = list(_read_csv(files, one_by_one=bool(types)))
        else:
            tables = [_read_parquet(file, columns, types) for file in files]
        if types:
            tables = [with_values(table, self._values(f), types) for table, f in zip(tables, files, strict=True)]
        return concatenated(tables, str(self.path)).to_pandas()

    def _records(self, file: Path, types: pyarrow.Schema) -> Iterator[Any]:
        """The records of a JSON Lines part, as they are read."""
        values = with_values(pyarrow.table({"": [0]}), self._values(file), types).drop_columns([""]).to_pylist()[0]
        with file.open(encoding="utf-8", newline="\n") as lines:
            for line in lines:
                yield json.loads(line) | values if values else json.loads(line)

    def _head(self, n: int) -> Any:
        files = self._files()
        types = self._types(files)
        format = output_format(str(self.path))
        if format == "jsonl":
            return frame(list(itertools.islice((r for file in files for r in self._records(file, types)), n)))
        tables: list[pyarrow.Table] = []
        missing = n
        for file in files:
            start = (_csv_start if format == "csv" else _parquet_start)(file, missing)
            tables.append(with_values(start, self._values(file), types))
            missing -= start.num_rows
            if missing <= 0:
                break
        return concatenated(tables, str(self.path)).to_pandas() if tables else frame([])


def output_format(path: str) -> str:
    """The format a dataset's path asks for by its extension; Parquet where it has none.

    Raises:
        PlanError: An extension paibook does not write.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in OUTPUT_FORMATS:
        raise PlanError(f"cannot write {path!r}: an output path ends in .parquet, .jsonl or .csv")
    return OUTPUT_FORMATS[suffix]


def _read_parquet(file: Path, columns: Sequence[str] | None, types: pyarrow.Schema) -> pyarrow.Table:
    # Opened as a file: given a path, pyarrow would guess at partition columns itself.
    wanted = None if columns is None else [name for name in columns if name not in types.names]
    with pyarrow.parquet.ParquetFile(file) as content:
        table = content.read(wanted)
        if wanted == []:  # the path holds all that is asked for; the rows still count
            table = pyarrow.table({"": pyarrow.nulls(content.metadata.num_rows)})
        return table


def _read_csv(files: Sequence[Path], one_by_one: bool) -> Iterator[pyarrow.Table]:
    # As one text: types are guessed from what is read, and must not differ from part to part.
    first, *others = (file.read_bytes() for file in files)
    bodies = (content.partition(b"\n")[2] for content in others)
    whole = pyarrow.csv.read_csv(io.BytesIO(first + b"".join(bodies)))
    if not one_by_one:
        yield whole
        return
    options = pyarrow.csv.ConvertOptions(column_types=whole.schema)
    for file in files:
        yield pyarrow.csv.read_csv(file, convert_options=options)


def _csv_start(file: Path, rows: int) -> pyarrow.Table:
    with pyarrow.csv.open_csv(file) as batches:
        tables = [batches.schema.empty_table()]
        while sum(map(len, tables)) < rows:
            try:
                tables.append(pyarrow.Table.from_batches([batches.read_next_batch()]))
            except StopIteration:
                break
    return pyarrow.concat_tables(tables).slice(0, rows)


def _parquet_start(file: Path, rows: int) -> pyarrow.Table:
    with pyarrow.parquet.ParquetFile(file) as content:
        batches = list(itertools.islice(content.iter_batches(max(1, min(rows, 65536))), -(-rows // 65536)))
        return pyarrow.Table.from_batches(batches, content.schema_arrow).slice(0, rows)
