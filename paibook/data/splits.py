"""Splits: inputs cut into picklable shares, one for each map task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil
from typing import Any, Protocol

import pyarrow
import pyarrow.parquet

from paibook.data.arrow_tables import gathered
from paibook.data.batch import Batch
from paibook.data.csv_cuts import record_borders
from paibook.data.fingerprints import is_local
from paibook.data.formats import (
    DELIMITED,
    LINE_FORMATS,
    check_format,
    compression_of,
    delimiter_of,
    format_of,
    open_bytes,
)
from paibook.data.inputs import File, find_files
from paibook.data.partitions import types_of
from paibook.data.pieces import READ_ERRORS, FolderValues, Piece
from paibook.data.schemas import guess_csv, guess_json, spread, unified
from paibook.errors import DataError

SPLITS_PER_SLOT = 4  # enough that a slow split does not hold up the run
SMALLEST = 64 << 10  # bytes below which a task costs more than it brings
LARGEST = 32 << 20  # bytes whose records fit a worker's memory several times over
COMPRESSED = 4  # bytes of text in a stored byte, roughly
_IN_FOLDERS = (*DELIMITED, "jsonl", "parquet")  # formats whose records have fields


class Split(Protocol):
    """A picklable share of the input."""

    def batches(self) -> Iterator[Batch]:
        """The records, in order.

        Raises:
            DataError: Naming the file and the place in it.
        """

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pyarrow.Table]:
        """The records as tables of up to about a million rows or 64 MB, or some columns of them.

        Raises:
            DataError: As ``batches``; a column that is not there.
        """


@dataclass(frozen=True, slots=True)
class FileSplit:
    """Pieces of files that lie one after the other in the input.

    Attributes:
        weight: About how many bytes they have when decompressed.
    """

    pieces: tuple[Piece, ...]
    weight: int = 0

    def batches(self) -> Iterator[Batch]:
        """The records of all pieces, in order."""
        for piece in self.pieces:
            yield from piece.batches()

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pyarrow.Table]:
        """The records of all pieces, in order, those of small files together."""
        return gathered(table for piece in self.pieces for table in piece.tables(columns))


def file_splits(
    patterns: Sequence[str],
    slots: int,
    format: str | None = None,
    split_bytes: int | None = None,
    typed: bool = False,
    partitions: pyarrow.Schema | None = None,
) -> list[FileSplit]:
    """Cut files into splits of about equal size, a few for each slot, in the order of the input.

    Uncompressed line files are cut anywhere, Parquet between row groups, local uncompressed CSV between rows, for which
    it is read once here (a gigabyte a second or so); other files stay whole. Small files share splits.

    Args:
        patterns: Paths, globs, folders and URLs.
        slots: Tasks that run at once.
        format: One of ``FORMATS``, or None to go by each file's extension.
        split_bytes: Size to aim at; chosen from the total where None.
        typed: Guess the types of the columns of CSV and JSON Lines from some rows of all the input, so that
            ``Split.tables`` gives the same ones for every split.
        partitions: Types of columns that folders hold (``year=2024/``); guessed where None.

    Raises:
        DataError: A pattern that matches nothing, or a file that cannot be read.
        PlanError: An unknown format.
    """
    check_format(format)
    files = [file for pattern in patterns for file in find_files(pattern)]
    total = sum(map(weight_of, files))
    size = split_bytes or min(LARGEST, max(SMALLEST, ceil(total / (SPLITS_PER_SLOT * max(1, slots)))))
    types = types_of([file.folders for file in files]) if partitions is None else partitions
    weighted = [cut for file in files for cut in _cut(_whole(file, format, types), file, size)]
    if typed:
        weighted = _typed(weighted)
    runs = group([(cut, cut[1]) for cut in weighted], size)
    return [FileSplit(tuple(piece for piece, _ in run), sum(weight for _, weight in run)) for run in runs]


def records(split: Split) -> Iterator[Any]:
    """All records of a split, one by one."""
    for batch in split.batches():
        yield from batch.records


def weight_of(file: File) -> int:
    """About how many bytes a file has when decompressed."""
    return file.size * (COMPRESSED if compression_of(file.url) else 1)


def group(weighted: Sequence[tuple[Any, int]], size: int) -> list[list[Any]]:
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


def cut_csv(piece: Piece, size: int, stop: int) -> list[tuple[Piece, int]]:
    """A piece of a local uncompressed CSV file in pieces of about ``size`` bytes, with their weights.

    Args:
        piece: It begins where a row does.
        size: Bytes, about.
        stop: Where it ends.
    """
    targets = _edges(piece.start, stop, size)[1:-1]
    with open_bytes(piece.url) as file:
        found = record_borders(file, targets, delimiter_of(piece.url, piece.format), piece.start)
    edges = [piece.start, *(border for border in found if border < stop), stop]
    return [(replace(piece, start=a, stop=b), b - a) for a, b in pairwise(edges)]


def _whole(file: File, format: str | None, types: pyarrow.Schema) -> Piece:
    format = format_of(file.url, format)
    folders = FolderValues(file.folders, types) if types and format in _IN_FOLDERS else None
    return Piece(file.url, format, fingerprint=file.fingerprint, folders=folders)


def _cut(piece: Piece, file: File, size: int) -> list[tuple[Piece, int]]:
    """A file's pieces, each with its weight in bytes."""
    weight = weight_of(file)
    if weight <= size:
        return [(piece, weight)]
    if piece.format == "parquet":
        return _cut_row_groups(piece, size)
    if compression_of(file.url) is None:
        if piece.format in LINE_FORMATS:
            edges = _edges(0, file.size, size)
            return [(replace(piece, start=a, stop=b), b - a) for a, b in pairwise(edges)]
        if piece.format in DELIMITED and is_local(file.url):
            return _cut_csv_file(piece, file, size)
    return [(piece, weight)]


def _edges(start: int, stop: int, size: int) -> list[int]:
    count = max(1, ceil((stop - start) / size))
    return [start + (stop - start) * i // count for i in range(count + 1)]


def _cut_csv_file(piece: Piece, file: File, size: int) -> list[tuple[Piece, int]]:
    try:
        return cut_csv(piece, size, file.size)
    except READ_ERRORS as error:
        raise DataError(f"cannot read {piece.url} as {piece.format}: {error}") from error


def _cut_row_groups(piece: Piece, size: int) -> list[tuple[Piece, int]]:
    sizes = row_groups(piece.url)
    runs = group(list(enumerate(sizes)), size)
    return [(replace(piece, start=run[0], stop=run[-1] + 1), sum(sizes[i] for i in run)) for run in runs]


def row_groups(url: str) -> list[int]:
    """Sizes in bytes of a Parquet file's row groups.

    Raises:
        DataError: It cannot be read.
    """
    try:
        with open_bytes(url) as file:
            metadata = pyarrow.parquet.read_metadata(file)
    except READ_ERRORS as error:
        raise DataError(f"cannot read {url} as parquet: {error}") from error
    return [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]


def _typed(weighted: Sequence[tuple[Piece, int]]) -> list[tuple[Piece, int]]:
    """The same pieces with the types of their columns."""
    pieces = [piece for piece, _ in weighted]
    schemas = {
        "csv": _guessed([piece for piece in pieces if piece.format in DELIMITED]),
        "jsonl": _guessed([piece for piece in pieces if piece.format == "jsonl"]),
    }
    schemas["tsv"] = schemas["csv"]
    return [(replace(piece, schema=schemas.get(piece.format)), weight) for piece, weight in weighted]


def _guessed(pieces: Sequence[Piece]) -> pyarrow.Schema | None:
    if not pieces:
        return None
    found = []
    for piece in (pieces[i] for i in spread(len(pieces))):
        try:
            if piece.format == "jsonl":
                found.append(guess_json(piece.url, piece.start))
            else:
                found.append(guess_csv(piece.url, delimiter_of(piece.url, piece.format), piece.start))
        except (*READ_ERRORS, DataError):
            continue  # whoever reads the piece says what is wrong with it, and where
    return unified(found, as_text=pieces[0].format != "jsonl")
