"""Answers: what a job's output comes to, and what it must come to."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy
import pyarrow
import pyarrow.parquet

from benchmarks.mapreduce_jobs.words import frequencies, words_of

CLOSE = 1e-9  # relative: sums of floats in another order


@dataclass(frozen=True)
class Answer:
    """A digest of rows, whatever their order.

    Attributes:
        columns: Of the output: what identifies a row, then its number.
        rows: How many.
        names: Sum over the rows of a checksum of what identifies them.
        total: Sum over the rows of their number times a small weight that depends on what identifies them.
    """

    columns: tuple[str, ...]
    rows: int
    names: int
    total: float

    def agrees(self, other: Answer) -> bool:
        """Whether two outputs hold the same rows."""
        same = (self.rows, self.names) == (other.rows, other.names)
        return same and math.isclose(self.total, other.total, rel_tol=CLOSE)


def weights(files: Sequence[Path]) -> tuple[int, Answer]:
    """How many documents there are, and the answer to TF-IDF."""
    lines = list(_lines(files))
    found = [pair for line in lines for pair in frequencies(line)]
    containing = Counter(word for word, _ in found)
    rows = ((word, id, count * math.log(len(lines) / containing[word])) for word, (id, count) in found)
    return len(lines), _digest(("word", "id", "weight"), rows)


def word_counts(files: Sequence[Path]) -> Answer:
    """The answer to the word count."""
    counts: Counter[str] = Counter()
    for line in _lines(files):
        counts.update(words_of(json.loads(line)["text"]))
    return _digest(("word", "n"), counts.items())


def text_sums(files: Sequence[Path]) -> Answer:
    """The answer to the group-by of texts."""
    sums: Counter[str] = Counter()
    for line in _lines(files):
        name, value = line.split("\t")
        sums[name] += int(value)
    return _digest(("word", "n"), sums.items())


def integer_sums(files: Sequence[Path]) -> Answer:
    """The answer to the group-by of whole numbers."""
    tables = [pyarrow.parquet.read_table(file) for file in files]
    keys = numpy.concatenate([table["key"].to_numpy() for table in tables])
    values = numpy.concatenate([table["value"].to_numpy() for table in tables])
    present, places = numpy.unique(keys, return_inverse=True)
    return _of_integers(("key", "value"), present, numpy.bincount(places, values))


def read(folder: Path, columns: tuple[str, ...]) -> Answer:
    """What a side wrote: Parquet files, or lines of JSON ``word <tab> [document, weight]``."""
    parts = sorted(folder.rglob("*.parquet"))
    if not parts:
        return _digest(columns, _pairs(folder))
    tables = [pyarrow.parquet.read_table(part).select(columns) for part in parts]
    table = pyarrow.concat_tables(tables, promote_options="default")  # a part without rows has no types
    if columns[0] == "key":
        return _of_integers(columns, table[columns[0]].to_numpy(), table[columns[1]].to_numpy())
    return _digest(columns, zip(*(column.to_pylist() for column in table.columns), strict=True))


def _pairs(folder: Path) -> Iterator[tuple[str, str, float]]:
    for line in _lines(sorted(folder.glob("part-*"))):
        word, value = line.split("\t")
        id, weight = json.loads(value)
        yield json.loads(word), id, weight


def _lines(files: Iterable[Path]) -> Iterator[str]:
    for file in files:
        with file.open(encoding="utf-8", newline="\n") as lines:
            yield from lines


def _digest(columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> Answer:
    count = names = 0
    numbers = []
    for *name, number in rows:
        checksum = crc32("\0".join(map(str, name)).encode())
        count += 1
        names += checksum
        numbers.append(float(number) * (1 + checksum % 7))  # type: ignore[arg-type]
    return Answer(columns, count, names, math.fsum(numbers))


def _of_integers(columns: tuple[str, ...], keys: numpy.ndarray, values: numpy.ndarray) -> Answer:  # type: ignore[type-arg]
    total = math.fsum((values.astype(numpy.float64) * (1 + keys % 7)).tolist())
    return Answer(columns, len(keys), int((keys.astype(numpy.uint64) * numpy.uint64(2654435761)).sum()), total)
