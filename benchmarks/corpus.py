"""The data of the MapReduce suite: a real corpus, and pairs made up, in files of about equal size for every side."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet

DATA = Path(__file__).parents[2] / "shared" / "data"
SOURCES = ("cppdocs.jsonl.gz", "20news-train.jsonl.gz", "20news-test.jsonl.gz")
FILES = 8
TEXTS, TEXT_KEYS = 5_000_000, 500_000
SPREAD = 0x9E3779B97F4A7C15 - (1 << 64)  # Fibonacci hashing's factor (Knuth, TAOCP 3, 6.4)
INTEGERS, INTEGER_KEYS = 20_000_000, 1_000_000


def corpus_files(data: Path = DATA, cache: Path | None = None) -> list[Path]:
    """The corpus's files, each line a JSON object with ``id`` and ``text``; decompressed the first time.

    Args:
        data: Folder of the compressed sources.
        cache: Where the files go; a folder under the system's temporary one by default.

    Raises:
        OSError: A source is missing or cannot be read.
    """
    return _cached(cache or _CACHE / "corpus", lambda folder: _deal(data, folder))


def text_files() -> list[Path]:
    """Lines ``text <tab> number``, the texts uniformly drawn from half a million."""
    return _cached(_CACHE / "texts", _draw_texts)


def integer_files() -> list[Path]:
    """Parquet files of ``key`` and ``value``, the keys uniformly drawn from a million."""
    return _cached(_CACHE / "integers", _draw_integers)


def sparse_files() -> list[Path]:
    """The same pairs, their keys multiplied so that they lie all over 64 bits."""
    return _cached(_CACHE / "sparse", _spread_integers)


_CACHE = Path(tempfile.gettempdir()) / "paibook-benchmarks"


def _cached(folder: Path, make: Callable[[Path], None]) -> list[Path]:
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=folder.parent))
        try:
            make(staging)
            os.replace(staging, folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return sorted(folder.iterdir())


def _draw_texts(folder: Path) -> None:
    random = numpy.random.default_rng(0)
    for number in range(FILES):
        keys = random.integers(TEXT_KEYS, size=TEXTS // FILES).tolist()
        values = random.integers(1000, size=TEXTS // FILES).tolist()
        lines = (f"user-{key:07d}\t{value}\n" for key, value in zip(keys, values, strict=True))
        (folder / f"part-{number}.tsv").write_text("".join(lines))


def _draw_integers(folder: Path) -> None:
    random = numpy.random.default_rng(0)
    for number in range(FILES):
        keys = random.integers(INTEGER_KEYS, size=INTEGERS // FILES)
        values = random.integers(1000, size=INTEGERS // FILES)
        table = pyarrow.table({"key": keys, "value": values})
        pyarrow.parquet.write_table(table, folder / f"part-{number}.parquet")


def _spread_integers(folder: Path) -> None:
    for file in integer_files():
        table = pyarrow.parquet.read_table(file)
        spread = table["key"].to_numpy() * numpy.int64(SPREAD)  # odd, so that different keys stay so; wraps around
        pyarrow.parquet.write_table(table.set_column(0, "key", pyarrow.array(spread)), folder / file.name)


def _deal(data: Path, folder: Path) -> None:
    """Deal the sources' lines out, each to the file that is smallest so far."""
    files = [(folder / f"part-{number}.jsonl").open("wb") for number in range(FILES)]
    try:
        sizes = [0] * FILES
        for source in SOURCES:
            with gzip.open(data / source) as lines:
                for line in lines:
                    smallest = sizes.index(min(sizes))
                    sizes[smallest] += files[smallest].write(line)
    finally:
        for file in files:
            file.close()
