"""Ray: a shuffle of map tasks with one return for each bucket, and reduce tasks that take them."""

from __future__ import annotations

from typing import Any

from benchmarks.mapreduce_jobs.serving import file_of, serve, workers

BUCKETS = 8


def main() -> None:
    """Start a local Ray and serve."""
    import ray

    ray.init(num_cpus=workers(), include_dashboard=False, log_to_driver=False, object_store_memory=2 << 30)
    map_ = ray.remote(num_returns=BUCKETS)(_map)
    reduce_ = ray.remote(_reduce)
    ray.get([ray.remote(_ready).remote() for _ in range(8)])  # workers are there

    def tf_idf(files: list[str], out: str, documents: int) -> None:
        mapped = [map_.remote(file) for file in files]
        ray.get(
            [
                reduce_.remote(file_of(out, bucket), documents, *(parts[bucket] for parts in mapped))
                for bucket in range(BUCKETS)
            ]
        )

    serve({"tf_idf": tf_idf})
    ray.shutdown()


def _ready() -> None:
    """Nothing."""


def _map(file: str) -> list[Any]:
    from collections import defaultdict
    from zlib import crc32

    from benchmarks.mapreduce_jobs.words import frequencies

    groups: dict[str, list[tuple[str, int]]] = defaultdict(list)
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            for word, value in frequencies(line):
                groups[word].append(value)
    buckets: list[dict[str, Any]] = [{} for _ in range(BUCKETS)]
    for word, found in groups.items():
        buckets[crc32(word.encode()) % BUCKETS][word] = found
    return buckets


def _reduce(out: str, documents: int, *parts: dict[str, Any]) -> None:
    from collections import defaultdict

    from benchmarks.mapreduce_jobs.weights_file import write_weights

    groups: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for part in parts:
        for word, found in part.items():
            groups[word] += found
    write_weights(groups.items(), documents, out)


if __name__ == "__main__":
    main()
