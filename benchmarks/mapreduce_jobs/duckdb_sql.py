"""DuckDB in one process, on as many threads as the others have workers."""

from __future__ import annotations

from benchmarks.mapreduce_jobs.serving import file_of, serve, workers


def main() -> None:
    """Serve."""
    import duckdb

    connection = duckdb.connect(config={"threads": workers()})

    def group_integers(files: list[str], out: str) -> None:
        query = f"SELECT key, sum(value)::BIGINT AS value FROM read_parquet({files!r}) GROUP BY key"
        connection.execute(f"COPY ({query}) TO '{file_of(out, 0)}' (FORMAT parquet)")

    serve({"group_integers": group_integers})


if __name__ == "__main__":
    main()
