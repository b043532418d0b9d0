"""PySpark's RDDs: groupByKey for what needs all values, reduceByKey for sums; parts written where they are made."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from operator import add
from typing import Any

import pyarrow
import pyarrow.parquet

from benchmarks.mapreduce_jobs.serving import file_of, serve, workers
from benchmarks.mapreduce_jobs.words import frequencies, weights, words_of

PARTITIONS = 8


def main() -> None:
    """Start a local Spark and serve."""
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = (
        SparkSession.builder.master(f"local[{workers()}]")
        .config("spark.driver.memory", "4g")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .getOrCreate()
    )
    context = session.sparkContext
    context.setLogLevel("ERROR")
    context.parallelize(range(64), PARTITIONS).map(abs).count()  # Python workers are there

    def tf_idf(files: list[str], out: str, documents: int) -> None:
        lines = context.textFile(",".join(files), PARTITIONS)
        grouped = lines.flatMap(frequencies).groupByKey(PARTITIONS)
        grouped.mapPartitionsWithIndex(partial(_write_weights, out, documents)).count()

    def word_count(files: list[str], out: str) -> None:
        pairs = context.textFile(",".join(files), PARTITIONS).flatMap(_ones)
        pairs.reduceByKey(add, PARTITIONS).mapPartitionsWithIndex(partial(_write_counts, out)).count()

    def group_texts(files: list[str], out: str) -> None:
        pairs = context.textFile(",".join(files), PARTITIONS).map(_number)
        pairs.reduceByKey(add, PARTITIONS).mapPartitionsWithIndex(partial(_write_counts, out)).count()

    serve({"tf_idf": tf_idf, "word_count": word_count, "group_texts": group_texts})
    session.stop()


def _ones(line: str) -> Iterator[tuple[str, int]]:
    for word in words_of(json.loads(line)["text"]):
        yield word, 1


def _number(line: str) -> tuple[str, int]:
    name, value = line.split("\t")
    return name, int(value)


def _write_weights(out: str, documents: int, number: int, groups: Iterable[tuple[str, Any]]) -> Iterator[int]:
    columns: tuple[list[Any], ...] = ([], [], [])
    for word, found in groups:
        for column, values in zip(columns, weights(word, list(found), documents), strict=True):
            column += values
    table = pyarrow.table(dict(zip(("word", "id", "weight"), columns, strict=True)))
    pyarrow.parquet.write_table(table, file_of(out, number))
    yield table.num_rows


def _write_counts(out: str, number: int, pairs: Iterable[tuple[str, int]]) -> Iterator[int]:
    found = dict(pairs)
    table = pyarrow.table({"word": list(found), "n": list(found.values())})
    pyarrow.parquet.write_table(table, file_of(out, number))
    yield table.num_rows


if __name__ == "__main__":
    main()
