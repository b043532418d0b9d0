"""Tables: CSV and Parquet files as one dict per row, and whole documents."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator
from typing import Any

import fsspec
import pyarrow.parquet

from paibook.data.batch import Batch
from paibook.data.formats import open_bytes, suffix_of
from paibook.errors import DataError

ROWS = 4096  # rows of a batch
FIELD_LIMIT = 1 << 30  # characters in one CSV field; the csv module's own limit of 128 KiB is too low for documents


def csv_batches(url: str) -> Iterator[Batch]:
    """Rows of a CSV file with a header as dicts of str; ``.tsv`` files are cut at tabs. Empty lines are skipped.

    Raises:
        DataError: A row wider or narrower than the header, broken quoting or bytes that are not UTF-8; names the file
            and the line.
    """
    with open_bytes(url) as file:
        rows = _numbered_rows(url, file)
        header = next(rows, (0, []))[1]
        repeated = [name for name in header if header.count(name) > 1]
        if repeated:
            raise DataError(f"{url}, line 1: the column {repeated[0]!r} appears twice in the header")
        first = 0
        while records := [_record(url, header, line, row) for line, row in itertools.islice(rows, ROWS)]:
            yield Batch(records, lambda index, first=first: _csv_place(url, first + index))  # type: ignore[misc]
            first += len(records)


def parquet_batches(url: str, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
    """Rows of a Parquet file's row groups ``start`` to ``stop`` as dicts."""
    with fsspec.open(url, "rb") as file:
        table = pyarrow.parquet.ParquetFile(file)
        groups = range(start, table.num_row_groups if stop is None else stop)
        row = sum(table.metadata.row_group(group).num_rows for group in range(start))
        for batch in table.iter_batches(ROWS, row_groups=list(groups)):
            records = rows_of(batch)
            yield Batch(records, lambda index, row=row: f"{url}, row {row + index}")  # type: ignore[misc]
            row += len(records)


def rows_of(batch: Any) -> list[dict[str, Any]]:
    """The rows of an Arrow table or record batch as dicts of Python values."""
    names = batch.schema.names
    columns = [column.to_pylist() for column in batch.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def document_batches(url: str) -> Iterator[Batch]:
    """A whole file as one record ``{"path": ..., "text": ...}``.

    Raises:
        DataError: Bytes that are not UTF-8; names the file and the line.
    """
    with open_bytes(url) as file:
        content = file.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(url, content.count(b"\n", 0, error.start) + 1, error) from error
    yield Batch([{"path": url, "text": text}], lambda index: url)


def _numbered_rows(url: str, file: Any) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not empty, each with the number of its last line."""
    csv.field_size_limit(FIELD_LIMIT)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    reader = csv.reader(text, delimiter="\t" if suffix_of(url) == ".tsv" else ",", strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{url}, line {reader.line_num}: {error}") from error
    except UnicodeDecodeError as error:
        raise _not_utf8(url, _first_bad_line(url) or reader.line_num + 1, error) from error


def _record(url: str, header: list[str], line: int, row: list[str]) -> dict[str, str]:
    if len(row) != len(header):
        raise DataError(f"{url}, line {line}: {len(row)} fields where the header names {len(header)}: {row!r:.80}")
    return dict(zip(header, row, strict=True))


def _csv_place(url: str, number: int) -> str:
    with open_bytes(url) as file:
        line, _ = next(itertools.islice(_numbered_rows(url, file), number + 1, None))
    return f"{url}, line {line}"


def _first_bad_line(url: str) -> int | None:
    with open_bytes(url) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return None


def _not_utf8(url: str, line: int, error: UnicodeDecodeError) -> DataError:
    byte = error.object[error.start]
    return DataError(f"{url}, line {line}: byte 0x{byte:02x} is not UTF-8 ({error.reason}); convert the file to UTF-8")
