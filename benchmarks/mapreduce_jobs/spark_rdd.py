"""PySpark's RDDs: groupByKey for what needs all values, reduceByKey for sums.

Written the way its documentation says, as a DataFrame; or, with the argument ``tuned``, by pyarrow where it is made.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from operator import add
from typing import Any

from benchmarks.mapreduce_jobs.serving import file_of, serve, workers
from benchmarks.mapreduce_jobs.weights_file import write_weights
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
    tuned = "tuned" in sys.argv
    context.parallelize(range(64), PARTITIONS).map(abs).count()  # Python workers are there

    def tf_idf(files: list[str], out: str, documents: int) -> None:
        grouped = context.textFile(",".join(files), PARTITIONS).flatMap(frequencies).groupByKey(PARTITIONS)
        if tuned:
            grouped.mapPartitionsWithIndex(partial(_write_weights, out, documents)).count()
        else:
            rows = grouped.flatMap(partial(_rows, documents))
            session.createDataFrame(rows, "word string, id string, weight double").write.parquet(out)

    def word_count(files: list[str], out: str) -> None:
        counts = context.textFile(",".join(files), PARTITIONS).flatMap(_ones).reduceByKey(add, PARTITIONS)
        session.createDataFrame(counts, "word string, n long").write.parquet(out)

    def group_texts(files: list[str], out: str) -> None:
        sums = context.textFile(",".join(files), PARTITIONS).map(_number).reduceByKey(add, PARTITIONS)
        session.createDataFrame(sums, "word string, n long").write.parquet(out)

    serve({"tf_idf": tf_idf, "word_count": word_count, "group_texts": group_texts})
    session.stop()


def _rows(documents: int, group: tuple[str, Any]) -> Iterator[tuple[str, str, float]]:
    return zip(*weights(group[0], list(group[1]), documents), strict=True)


def _ones(line: str) -> Iterator[tuple[str, int]]:
    for word in words_of(json.loads(line)["text"]):
        yield word, 1


def _number(line: str) -> tuple[str, int]:
    name, value = line.split("\t")
    return name, int(value)


def _write_weights(out: str, documents: int, number: int, groups: Iterable[tuple[str, Any]]) -> Iterator[int]:
    yield write_weights(((word, list(found)) for word, found in groups), documents, file_of(out, number))


if __name__ == "__main__":
    main()
