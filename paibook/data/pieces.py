"""Pieces: files, or ranges of them, with all that is needed to read them elsewhere."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow

from paibook.data.arrow_tables import csv_tables, file_tables, json_tables, parquet_tables, selected, text_tables
from paibook.data.batch import Batch
from paibook.data.csv_files import csv_batches
from paibook.data.files import binary_batches, document_batches, image_batches
from paibook.data.fingerprints import Fingerprint, check_unchanged, is_local
from paibook.data.formats import DELIMITED, delimiter_of
from paibook.data.libsvm import libsvm_batches, libsvm_tables
from paibook.data.lines import END, json_batches, text_batches
from paibook.data.partitions import with_values
from paibook.data.tables import parquet_batches
from paibook.errors import DataError

READ_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError, pyarrow.ArrowException)
_RECORDS = {"text": text_batches, "jsonl": json_batches, "libsvm": libsvm_batches}
_FILES: dict[str, Callable[[str], Iterator[Batch]]] = {
    "document": document_batches,
    "binary": binary_batches,
    "image": image_batches,
}
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FolderValues:
    """Columns that the folders of a path hold, ``year=2024/part.parquet``.

    Attributes:
        values: Text by column, None for null.
        schema: The columns' types.
    """

    values: dict[str, str | None]
    schema: pyarrow.Schema

    def add_to(self, table: pyarrow.Table, columns: Sequence[str] | None = None) -> pyarrow.Table:
        """A table with these columns, or those asked for; a table's own ones of the same name give way."""
        own = [name for name in table.column_names if name in self.schema.names]
        found = with_values(table.drop_columns(own) if own else table, self.values, self.schema)
        return found if columns is None else found.select(list(columns))

    def fields(self) -> dict[str, Any]:
        """The columns as Python values."""
        row = with_values(pyarrow.table({"": [0]}), self.values, self.schema).drop_columns([""])
        return dict(row.to_pylist()[0])


@dataclass(frozen=True, slots=True)
class Piece:
    """A file, or a range of one.

    Attributes:
        url: The file.
        format: One of ``FORMATS``.
        start, stop: Bytes of a line file or a CSV file, row groups of a Parquet file; None is the end.
        fingerprint: The file's when the run was planned; None where it may be any.
        schema: Types of columns of CSV and JSON Lines, for ``tables``.
        folders: Columns that the path holds.
    """

    url: str
    format: str
    start: int = 0
    stop: int | None = None
    fingerprint: Fingerprint | None = None
    schema: pyarrow.Schema | None = None
    folders: FolderValues | None = None

    def batches(self) -> Iterator[Batch]:
        """The piece's records, in order.

        Raises:
            DataError: Naming the file and the place in it; the file changed since it was planned.
        """
        found = self._guarded(self._batches())
        return found if self.folders is None else _with_fields(found, self.folders.fields())

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pyarrow.Table]:
        """The piece's records as tables, or some columns of them.

        Raises:
            DataError: As ``batches``; a column that is not there.
        """
        inner = columns
        if columns is not None and self.folders is not None:
            inner = [name for name in columns if name not in self.folders.schema.names]
        for table in self._guarded(self._tables(inner)):
            yield table if self.folders is None else self.folders.add_to(table, columns)

    def _batches(self) -> Iterator[Batch]:
        if self.format == "parquet":
            return parquet_batches(self.url, self.start, self.stop)
        if self.format in DELIMITED:
            return csv_batches(self.url, delimiter_of(self.url, self.format), self.start, self._end)
        if self.format in _FILES:
            return _FILES[self.format](self.url)
        return _RECORDS[self.format](self.url, self.start, self._end)

    def _tables(self, columns: Sequence[str] | None) -> Iterator[pyarrow.Table]:
        if self.format == "parquet":
            return parquet_tables(self.url, self.start, self.stop, columns)
        if self.format in DELIMITED:
            delimiter = delimiter_of(self.url, self.format)
            return csv_tables(self.url, delimiter, self.start, self._end, columns, self.schema)
        if self.format == "jsonl":
            return json_tables(self.url, self.start, self._end, columns, self.schema)
        if self.format in _FILES:
            found = file_tables(_FILES[self.format](self.url))
        else:
            read = libsvm_tables if self.format == "libsvm" else text_tables
            found = read(self.url, self.start, self._end)
        return selected(found, columns, self.url)

    @property
    def _end(self) -> int:
        return END if self.stop is None else self.stop

    def _guarded(self, items: Iterator[T]) -> Iterator[T]:
        """What is read, for certain from the file that was planned."""
        if is_local(self.url):  # far away it costs a round trip: once, at the end, is enough to refuse the result
            self._check()
        try:
            yield from items
        except DataError:
            self._check()
            raise
        except READ_ERRORS as error:
            self._check()
            raise self._unreadable(error) from error
        except Exception as error:  # of a remote file system's library, each of which has errors of its own
            if is_local(self.url):
                raise
            raise self._unreadable(error) from error
        self._check()

    def _check(self) -> None:
        check_unchanged(self.url, self.fingerprint)

    def _unreadable(self, error: Exception) -> DataError:
        return DataError(f"cannot read {self.url} as {self.format}: {error}")


def _with_fields(batches: Iterator[Batch], fields: dict[str, Any]) -> Iterator[Batch]:
    for batch in batches:
        records = [record | fields if isinstance(record, dict) else record for record in batch.records]
        yield Batch(records, batch.place)
