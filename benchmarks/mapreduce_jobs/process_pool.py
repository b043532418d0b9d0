"""multiprocessing.Pool, tuned by hand: buckets by a stable hash, one pickle file for each map and bucket."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any
from zlib import crc32

import pyarrow
import pyarrow.parquet

from benchmarks.mapreduce_jobs.serving import file_of, serve, workers
from benchmarks.mapreduce_jobs.weights_file import write_weights
from benchmarks.mapreduce_jobs.words import frequencies, words_of

BUCKETS = 8


def main() -> None:
    """Start the pool and serve."""
    with multiprocessing.get_context("spawn").Pool(workers()) as pool:
        pool.map(len, [()] * 64)  # all of them are there
        serve(
            {
                "tf_idf": partial(job, pool, map_frequencies, reduce_weights),
                "word_count": partial(job, pool, map_words, reduce_counts, documents=0),
                "group_texts": partial(job, pool, map_numbers, reduce_counts, documents=0),
            }
        )


def job(
    pool: Any, mapper: Callable[..., None], reducer: Callable[..., None], files: Any, out: str, documents: int
) -> None:
    """Map each file, then reduce each bucket."""
    folder = tempfile.mkdtemp(prefix="paibook-benchmarks-pool-")
    try:
        pool.starmap(mapper, [(file, folder, number) for number, file in enumerate(files)], chunksize=1)
        calls = [(folder, len(files), bucket, file_of(out, bucket), documents) for bucket in range(BUCKETS)]
        pool.starmap(reducer, calls, chunksize=1)
    finally:
        shutil.rmtree(folder)


def map_frequencies(file: str, folder: str, number: int) -> None:
    """Word to what ``frequencies`` says."""
    groups: dict[str, list[tuple[str, int]]] = defaultdict(list)
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            for word, value in frequencies(line):
                groups[word].append(value)
    _spread(groups.items(), folder, number)


def map_words(file: str, folder: str, number: int) -> None:
    """Word to count."""
    import json

    counts: Counter[str] = Counter()
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            counts.update(words_of(json.loads(line)["text"]))
    _spread(counts.items(), folder, number)


def map_numbers(file: str, folder: str, number: int) -> None:
    """Text to sum."""
    sums: dict[str, int] = defaultdict(int)
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            name, value = line.split("\t")
            sums[name] += int(value)
    _spread(sums.items(), folder, number)


def _spread(items: Iterable[tuple[str, Any]], folder: str, number: int) -> None:
    buckets: list[list[Any]] = [[] for _ in range(BUCKETS)]
    for item in items:
        buckets[crc32(item[0].encode()) % BUCKETS].append(item)
    for bucket, content in enumerate(buckets):
        with open(os.path.join(folder, f"{number}-{bucket}"), "wb") as file:
            pickle.dump(content, file, protocol=5)


def _collected(folder: str, maps: int, bucket: int) -> Iterable[tuple[str, Any]]:
    for number in range(maps):
        with open(os.path.join(folder, f"{number}-{bucket}"), "rb") as file:
            yield from pickle.load(file)


def reduce_weights(folder: str, maps: int, bucket: int, out: str, documents: int) -> None:
    """Write a bucket's weights."""
    groups: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for word, found in _collected(folder, maps, bucket):
        groups[word] += found
    write_weights(groups.items(), documents, out)


def reduce_counts(folder: str, maps: int, bucket: int, out: str, documents: int) -> None:
    """Write a bucket's sums."""
    sums: dict[str, int] = defaultdict(int)
    for word, count in _collected(folder, maps, bucket):
        sums[word] += count
    pyarrow.parquet.write_table(pyarrow.table({"word": list(sums), "n": list(sums.values())}), out)


if __name__ == "__main__":
    main()
