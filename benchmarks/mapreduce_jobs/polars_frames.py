"""Polars in one process, on as many threads as the others have workers."""

from __future__ import annotations

import os

from benchmarks.mapreduce_jobs.serving import file_of, serve, workers


def main() -> None:
    """Serve."""
    os.environ["POLARS_MAX_THREADS"] = str(workers())
    import polars

    def group_integers(files: list[str], out: str) -> None:
        sums = polars.scan_parquet(files).group_by("key").agg(polars.col("value").sum()).collect()
        sums.write_parquet(file_of(out, 0))

    serve({"group_integers": group_integers})


if __name__ == "__main__":
    main()
