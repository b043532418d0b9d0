"""The corpus of the MapReduce suite: one set of JSON Lines files of about equal size, the same for every side."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
from pathlib import Path

DATA = Path(__file__).parents[2] / "shared" / "data"
SOURCES = ("cppdocs.jsonl.gz", "20news-train.jsonl.gz", "20news-test.jsonl.gz")
FILES = 8


def corpus_files(data: Path = DATA, cache: Path | None = None) -> list[Path]:
    """The corpus's files, each line a JSON object with ``id`` and ``text``; decompressed the first time.

    Args:
        data: Folder of the compressed sources.
        cache: Where the files go; a folder under the system's temporary one by default.

    Raises:
        OSError: A source is missing or cannot be read.
    """
    folder = cache or Path(tempfile.gettempdir()) / "paibook-benchmarks" / "corpus"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=folder.parent))
        try:
            _deal(data, staging)
            os.replace(staging, folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return sorted(folder.glob("*.jsonl"))


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
