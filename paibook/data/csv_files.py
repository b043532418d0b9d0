"""CSV and TSV files as one dict per row, whole or by ranges of bytes that begin and end between rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from paibook.data.batch import Batch
from paibook.data.lines import END, line_number, texts
from paibook.errors import DataError

ROWS = 4096  # rows of a batch
FIELD_LIMIT = 1 << 30  # characters in one CSV field; the csv module's own limit of 128 KiB is too low for documents


def csv_batches(url: str, delimiter: str = ",", start: int = 0, stop: int = END) -> Iterator[Batch]:
    """Rows of a CSV file with a header as dicts of str. Empty lines are skipped.

    Args:
        url: The file.
        delimiter: Between fields; quoting is as in RFC 4180, in TSV too.
        start, stop: Bytes; each the file's start or end or that of a row, as ``csv_cuts.record_borders`` finds them.

    Raises:
        DataError: A row wider or narrower than the header, broken quoting or bytes that are not UTF-8; names the file
            and the line.
    """
    rows = filter(None, _reader(url, delimiter, start, stop)[1])
    header = csv_header(url, delimiter) if start else _checked(url, next(rows, []))
    first = 0
    while some := list(islice(rows, ROWS)):
        if set(map(len, some)) != {len(header)}:
            _refuse_width(url, delimiter, start, stop, header)
        records = [dict(zip(header, row, strict=False)) for row in some]

        def place(index: int, first: int = first) -> str:
            lines = _numbered_rows(url, delimiter, start, stop)
            return f"{url}, line {next(islice(lines, first + index, None))[0]}"

        yield Batch(records, place)
        first += len(records)


def csv_header(url: str, delimiter: str = ",") -> list[str]:
    """The names of a CSV file's columns; empty where the file is.

    Raises:
        DataError: A name appears twice, or the first line cannot be read.
    """
    return _checked(url, next(filter(None, _reader(url, delimiter, 0, END)[1]), []))


def _checked(url: str, header: list[str]) -> list[str]:
    repeated = [name for name in header if header.count(name) > 1]
    if repeated:
        raise DataError(f"{url}, line 1: the column {repeated[0]!r} appears twice in the header")
    return header


def _numbered_rows(url: str, delimiter: str, start: int, stop: int) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not empty, without the header, each with the number of its last line."""
    before = line_number(url, start) - 1
    reader, rows = _reader(url, delimiter, start, stop)
    numbered = ((before + reader.line_num, row) for row in rows if row)
    if not start:
        next(numbered, None)
    yield from numbered


def _reader(url: str, delimiter: str, start: int, stop: int) -> tuple[Any, Iterator[list[str]]]:
    """A csv reader, which knows its line, and its rows."""
    csv.field_size_limit(FIELD_LIMIT)
    lines = chain.from_iterable(io.StringIO(text, newline="") for _, text in texts(url, start, stop))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)

    def rows() -> Iterator[list[str]]:
        try:
            yield from reader
        except csv.Error as error:
            raise _broken(url, start, reader, error) from error

    return reader, rows()


def _broken(url: str, start: int, reader: Any, error: csv.Error) -> DataError:
    line = line_number(url, start) - 1 + reader.line_num
    return DataError(
        f"{url}, line {line}: {error}; where quotes are plain characters, read the file with the format 'text'"
    )


def _refuse_width(url: str, delimiter: str, start: int, stop: int, header: list[str]) -> None:
    for line, row in _numbered_rows(url, delimiter, start, stop):
        if len(row) != len(header):
            raise DataError(f"{url}, line {line}: {len(row)} fields where the header names {len(header)}: {row!r:.80}")
