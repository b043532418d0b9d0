"""Dask DataFrame with its P2P shuffle."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pandas

from benchmarks.mapreduce_jobs.dask_side import cluster
from benchmarks.mapreduce_jobs.serving import serve
from benchmarks.mapreduce_jobs.words import frequencies, words_of

PARTITIONS = 8


def main() -> None:
    """Start the cluster and serve."""
    with cluster():
        serve({"tf_idf": tf_idf, "word_count": word_count, "group_integers": group_integers})


def tf_idf(files: list[str], out: str, documents: int) -> None:
    """Rows of frequencies, shuffled by word."""
    import dask.dataframe as frames

    meta = pandas.DataFrame({"word": pandas.Series(dtype="str"), "id": pandas.Series(dtype="str"), "n": [0][:0]})
    rows = frames.from_map(_frequencies, files, meta=meta).shuffle("word", npartitions=PARTITIONS, shuffle_method="p2p")
    weighted = rows.map_partitions(_weighted, documents, meta=meta[["word", "id"]].assign(weight=[0.0][:0]))
    weighted.to_parquet(out, write_index=False)


def word_count(files: list[str], out: str) -> None:
    """Counts of each file, shuffled by word."""
    import dask.dataframe as frames

    meta = pandas.DataFrame({"word": pandas.Series(dtype="str"), "n": [0][:0]})
    rows = frames.from_map(_counts, files, meta=meta).shuffle("word", npartitions=PARTITIONS, shuffle_method="p2p")
    rows.map_partitions(_summed, meta=meta).to_parquet(out, write_index=False)


def group_integers(files: list[str], out: str) -> None:
    """A group-by that shuffles."""
    import dask.dataframe as frames

    rows = frames.read_parquet(files)
    sums = rows.groupby("key").agg({"value": "sum"}, split_out=PARTITIONS, shuffle_method="p2p")
    sums.reset_index().to_parquet(out, write_index=False)


def _frequencies(file: str) -> Any:
    with open(file, encoding="utf-8") as lines:
        found = [(word, id, count) for line in lines for word, (id, count) in frequencies(line)]
    return pandas.DataFrame(found, columns=["word", "id", "n"])


def _weighted(rows: Any, documents: int) -> Any:
    containing = rows.groupby("word")["id"].transform("size")
    idf = (documents / containing).map(math.log)
    return pandas.DataFrame({"word": rows["word"], "id": rows["id"], "weight": rows["n"] * idf})


def _counts(file: str) -> Any:
    import json
    from collections import Counter

    counts: Counter[str] = Counter()
    with open(file, encoding="utf-8") as lines:
        _update(counts, (json.loads(line)["text"] for line in lines))
    return pandas.DataFrame({"word": list(counts), "n": list(counts.values())})


def _update(counts: Any, texts: Iterable[str]) -> None:
    for text in texts:
        counts.update(words_of(text))


def _summed(rows: Any) -> Any:
    return rows.groupby("word", as_index=False)["n"].sum()


if __name__ == "__main__":
    main()
