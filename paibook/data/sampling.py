"""Sampling: a share of the input, chosen at random, by which large inputs are hardly read.

Two stages (cluster sampling). Files are cut finely: line and CSV files into blocks, Parquet files into row groups,
others not at all. Of these units some are drawn, without putting any back; then each of their records is kept with the
probability that makes up the rest of the share. So every record has the same chance, while those of one block are
taken or left together in a large input. Few units are drawn never: up to ``UNITS`` of them are read whole, and thinned.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil
from typing import Any

import numpy
import pyarrow

from paibook.data.batch import Batch
from paibook.data.fingerprints import is_local
from paibook.data.formats import DELIMITED, LINE_FORMATS, compression_of
from paibook.data.pieces import Piece
from paibook.data.splits import FileSplit, Split, cut_csv, group, row_groups

UNITS = 64  # that a sample is drawn from at least, where there are as many
BLOCK = 128 << 10  # bytes of a line file or a CSV file
SMALLEST = 1 << 20  # bytes of a split, where there are more
_ALONE = 1 << 62  # the weight of what is a split of its own


@dataclass(frozen=True, slots=True)
class SampledSplit:
    """Some of the records of other splits.

    Attributes:
        parts: The splits, or pieces.
        share: The probability with which a record is kept.
        seed: Makes the choice.
        otherwise: Splits whose first record is kept where none else is: a sample of something is not empty.
    """

    parts: tuple[Any, ...]
    share: float
    seed: int
    otherwise: tuple[Any, ...] = ()

    def batches(self) -> Iterator[Batch]:
        """The records that are kept, in order.

        Raises:
            DataError: As the splits'.
        """
        empty = True
        for number, part in enumerate(self.parts):
            generator = self._generator(number)
            for batch in part.batches():
                chosen = numpy.flatnonzero(generator.random(len(batch.records)) < self.share).tolist()
                if chosen:
                    empty = False
                    yield _chosen(batch, chosen)
        if empty:
            yield from self._first()

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pyarrow.Table]:
        """As ``batches``, as tables; the choice of records is another.

        Raises:
            DataError: As the splits'.
        """
        empty = True
        for number, part in enumerate(self.parts):
            generator = self._generator(number)
            for table in part.tables(columns):
                kept = table.filter(pyarrow.array(generator.random(table.num_rows) < self.share))
                if kept.num_rows:
                    empty = False
                    yield kept
        if empty:
            tables = (table for part in self.otherwise for table in part.tables(columns) if table.num_rows)
            first = next(tables, None)
            if first is not None:
                yield first.slice(0, 1)

    @property
    def pending(self) -> Any:
        """What is pending of a ``PendingSplit``, else None."""
        return getattr(self.parts[0], "pending", None)

    def with_value(self, value: Any) -> SampledSplit:
        """As ``PendingSplit.with_value``."""
        part = self.parts[0].with_value(value)
        return replace(self, parts=(part,), otherwise=(part,) if self.otherwise else ())

    def _first(self) -> Iterator[Batch]:
        for part in self.otherwise:
            for batch in part.batches():
                if batch.records:
                    yield _chosen(batch, [0])
                    return

    def _generator(self, number: int) -> Any:
        return numpy.random.default_rng([self.seed, number])


def sampled(splits: Sequence[Split], fraction: float, seed: int = 0) -> list[SampledSplit]:
    """A share of splits, the same for the same seed and files.

    Args:
        splits: All of one input.
        fraction: Above 0, up to 1: the probability with which a record is in the sample.
        seed: Another one gives another sample.

    Returns:
        Splits with about that share of the records, at least one record where there is one. They are fewer where little
        is left to do.

    Raises:
        DataError: A file that cannot be read.
    """
    if not splits:
        return []
    if not 0 < fraction <= 1:
        raise ValueError(f"a fraction is above 0 and up to 1; got {fraction!r}")
    units = [unit for split in splits for unit in _units(split)]
    drawn = min(len(units), max(UNITS, ceil(fraction * len(units))))
    numbers = sorted(random.Random(seed).sample(range(len(units)), drawn))
    share = fraction * len(units) / drawn
    chosen = [units[number] for number in numbers]
    total = sum(weight for _, weight in chosen if weight < _ALONE)
    runs = group(chosen, max(SMALLEST, total // len(splits)))
    found = [SampledSplit(tuple(run), share, zlib.crc32(b"%d %d" % (seed, i))) for i, run in enumerate(runs)]
    # Of variables, whose content travels with the task, a split that is drawn is never empty.
    files = tuple(split for split in splits if isinstance(split, FileSplit))
    return [replace(found[0], otherwise=files or found[0].parts[:1]), *found[1:]]


def _chosen(batch: Batch, indices: list[int]) -> Batch:
    return Batch([batch.records[i] for i in indices], lambda index: batch.place(indices[index]))


def _units(split: Split) -> list[tuple[Any, int]]:
    """What a split is drawn from, with weights in bytes."""
    if not isinstance(split, FileSplit):
        return [(split, _ALONE)]
    return [unit for piece in split.pieces for unit in _units_of(piece)]


def _units_of(piece: Piece) -> list[tuple[Piece, int]]:
    if piece.format == "parquet":
        sizes = row_groups(piece.url)
        groups = range(piece.start, len(sizes) if piece.stop is None else piece.stop)
        return [(replace(piece, start=i, stop=i + 1), sizes[i]) for i in groups]
    stop = piece.stop if piece.stop is not None else piece.fingerprint.size if piece.fingerprint else 0
    if compression_of(piece.url) is not None or stop - piece.start <= BLOCK:
        return [(piece, max(1, stop - piece.start))]
    if piece.format in LINE_FORMATS:
        edges = [*range(piece.start, stop - BLOCK // 2, BLOCK), stop]
        return [(replace(piece, start=a, stop=b), b - a) for a, b in pairwise(edges)]
    if piece.format in DELIMITED and is_local(piece.url):
        return cut_csv(piece, BLOCK, stop)
    return [(piece, stop - piece.start)]
