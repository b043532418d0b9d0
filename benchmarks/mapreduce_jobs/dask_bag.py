"""dask.bag with its groupby by tasks, the one that runs on a distributed cluster."""

from __future__ import annotations

from typing import Any

from benchmarks.mapreduce_jobs.dask_side import cluster
from benchmarks.mapreduce_jobs.serving import file_of, serve
from benchmarks.mapreduce_jobs.weights_file import write_weights
from benchmarks.mapreduce_jobs.words import frequencies


def main() -> None:
    """Start the cluster and serve."""
    with cluster():
        serve({"tf_idf": tf_idf})


def tf_idf(files: list[str], out: str, documents: int) -> None:
    """Pairs grouped by word."""
    import dask
    from dask import bag

    pairs = bag.read_text(files).map(_frequencies).flatten()
    groups = pairs.groupby(_word, shuffle="tasks")
    parts = groups.to_delayed()
    dask.compute([dask.delayed(_write)(part, out, number, documents) for number, part in enumerate(parts)])


def _frequencies(line: str) -> list[Any]:
    return list(frequencies(line))


def _word(pair: Any) -> str:
    word: str = pair[0]
    return word


def _write(groups: Any, out: str, number: int, documents: int) -> None:
    found = ((word, [value for _, value in pairs]) for word, pairs in groups)
    write_weights(found, documents, file_of(out, number))


if __name__ == "__main__":
    main()
