"""Splits: inputs cut into picklable shares, one for each map task."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Any, Protocol

import fsspec
import pyarrow
import pyarrow.parquet

from paibook.data.batch import Batch
from paibook.data.formats import LINE_FORMATS, check_format, compression_of, format_of
from paibook.data.inputs import File, find_files
from paibook.data.lines import END, json_batches, text_batches
from paibook.data.tables import csv_batches, document_batches, parquet_batches
from paibook.errors import DataError

SPLITS_PER_SLOT = 4  # enough that a slow split does not hold up the run
SMALLEST = 64 << 10  # bytes below which a task costs more than it brings
LARGEST = 32 << 20  # bytes whose records fit a worker's memory several times over
COMPRESSED = 4  # bytes of text in a stored byte, roughly

_READ_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError, pyarrow.ArrowException)


class Split(Protocol):
    """A picklable share of the input."""

    def batches(self) -> Iterator[Batch]:
        """The records, in order.

        Raises:
            DataError: Naming the file and the place in it.
        """


@dataclass(frozen=True, slots=True)
class Piece:
    """A file, or a range of one.

    Attributes:
        url: The file.
        format: One of ``FORMATS``.
        start, stop: Bytes of a line file, row groups of a Parquet file; None is the end.
    """

    url: str
    format: str
    start: int = 0
    stop: int | None = None

    def batches(self) -> Iterator[Batch]:
        """The piece's records, in order."""
        try:
            yield from self._read()
        except _READ_ERRORS as error:
            raise DataError(f"cannot read {self.url} as {self.format}: {error}") from error

    def _read(self) -> Iterator[Batch]:
        if self.format == "parquet":
            return parquet_batches(self.url, self.start, self.stop)
        if self.format == "csv":
            return csv_batches(self.url)
        if self.format == "document":
            return document_batches(self.url)
        read = json_batches if self.format == "jsonl" else text_batches
        return read(self.url, self.start, END if self.stop is None else self.stop)


@dataclass(frozen=True, slots=True)
class FileSplit:
    """Pieces of files that lie one after the other in the input."""

    pieces: tuple[Piece, ...]

    def batches(self) -> Iterator[Batch]:
        """The records of all pieces, in order."""
        for piece in self.pieces:
            yield from piece.batches()


def file_splits(
    patterns: Sequence[str], slots: int, format: str | None = None, split_bytes: int | None = None
) -> list[FileSplit]:
    """Cut files into splits of about equal size, a few for each slot, in the order of the input.

    Args:
        patterns: Paths, globs, folders and URLs.
        slots: Tasks that run at once.
        format: One of ``FORMATS``, or None to go by each file's extension.
        split_bytes: Size to aim at; chosen from the total where None.

    Raises:
        DataError: A pattern that matches nothing.
        PlanError: An unknown format.
    """
    check_format(format)
    files = [file for pattern in patterns for file in find_files(pattern)]
    total = sum(_weight(file) for file in files)
    size = split_bytes or min(LARGEST, max(SMALLEST, ceil(total / (SPLITS_PER_SLOT * max(1, slots)))))
    weighted = [piece for file in files for piece in _cut(file, format_of(file.url, format), size)]
    return [FileSplit(tuple(pieces)) for pieces in _group(weighted, size)]


def records(split: Split) -> Iterator[Any]:
    """All records of a split, one by one."""
    for batch in split.batches():
        yield from batch.records


def _weight(file: File) -> int:
    return file.size * (COMPRESSED if compression_of(file.url) else 1)


def _cut(file: File, format: str, size: int) -> list[tuple[Piece, int]]:
    """A file's pieces, each with its weight in bytes."""
    weight = _weight(file)
    if weight <= size or (format not in LINE_FORMATS and format != "parquet"):
        return [(Piece(file.url, format), weight)]
    if format == "parquet":
        return _cut_row_groups(file.url, size)
    if compression_of(file.url):
        return [(Piece(file.url, format), weight)]
    count = ceil(file.size / size)
    edges = [file.size * i // count for i in range(count + 1)]
    return [(Piece(file.url, format, a, b), b - a) for a, b in pairwise(edges)]


def _cut_row_groups(url: str, size: int) -> list[tuple[Piece, int]]:
    try:
        with fsspec.open(url, "rb") as file:
            metadata = pyarrow.parquet.read_metadata(file)
    except _READ_ERRORS as error:
        raise DataError(f"cannot read {url} as parquet: {error}") from error
    groups = [(i, metadata.row_group(i).total_byte_size) for i in range(metadata.num_row_groups)]
    runs = _group(groups, size)
    return [(Piece(url, "parquet", run[0], run[-1] + 1), size) for run in runs]


def _group(weighted: Sequence[tuple[Any, int]], size: int) -> list[list[Any]]:
    """Runs of neighbours that together weigh about ``size``."""
    runs: list[list[Any]] = []
    room = -1
    for item, weight in weighted:
        if weight > room:
            runs.append([])
            room = size
        runs[-1].append(item)
        room -= weight
    return runs
