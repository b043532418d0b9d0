"""Queries on real worker processes, one of which is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pyarrow.parquet
import pytest

pytest.importorskip("duckdb")
pytest.importorskip("sqlglot")

import duckdb

pytestmark = pytest.mark.slow

ROWS = 400_000
QUERY = """
    SELECT region, count(*) AS n, sum(amount) AS total, count(DISTINCT customer) AS customers
    FROM sales JOIN customers USING (customer)
    WHERE amount > 10
    GROUP BY region
    ORDER BY region
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tables")
    g = numpy.random.default_rng(0)
    sales = pyarrow.table({"customer": g.integers(0, 5000, ROWS), "amount": g.integers(0, 1000, ROWS)})
    customers = pyarrow.table({"customer": numpy.arange(4000), "region": numpy.arange(4000) % 7})
    pyarrow.parquet.write_table(sales, folder / "sales.parquet", row_group_size=20_000)
    customers.to_pandas().to_csv(folder / "customers.csv", index=False)
    return {"sales": folder / "sales.parquet", "customers": folder / "customers.csv"}


def inputs(files: dict[str, Path]) -> list[dict[str, str]]:
    return [{"path": str(path), "name": name} for name, path in files.items()]


def expected(files: dict[str, Path]) -> Any:
    with duckdb.connect() as connection:
        for name, path in files.items():
            connection.execute(f"CREATE VIEW {name} AS FROM '{path}'")
        return connection.sql(QUERY).df()


def test_to_the_notebook_and_to_a_path(on_cluster: Any, files: dict[str, Path], tmp_path: Path) -> None:
    found = on_cluster(QUERY, *inputs(files), sql=True)
    assert found.equals(expected(files))
    written = on_cluster(QUERY, *inputs(files), sql=True, out=str(tmp_path / "out.parquet"))
    assert written.rows == 7
    types = pyarrow.parquet.read_schema(next((tmp_path / "out.parquet").glob("*.parquet"))).types
    assert list(map(str, types)) == ["int64", "int64", "decimal128(38, 0)", "int64"]
    assert [stage["name"] for stage in on_cluster.summary["stages"]] == ["map", "reduce", "reduce2", "reduce3"]


def test_a_small_table_is_given_to_every_task(
    on_cluster: Any, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paibook.runtimes.mapreduce.sql.cells.SMALL", 100_000)
    assert on_cluster(QUERY, *inputs(files), sql=True).equals(expected(files))
    assert [stage["name"] for stage in on_cluster.summary["stages"]] == ["map", "reduce", "reduce2"]
    assert on_cluster.summary["stages"][0]["records_in"] == ROWS


def test_a_collection_that_is_computed_on_the_cluster(on_cluster: Any) -> None:
    bag = pytest.importorskip("dask.bag").from_sequence([{"k": i % 3, "v": i} for i in range(90)], npartitions=3)
    query = "SELECT k, sum(v) AS s FROM b GROUP BY k ORDER BY k"
    inputs = {"variable": "b", "name": "b"}
    found = on_cluster(query, inputs, variables={"b": bag}, sql=True, **{"as": "list"})
    assert found == [{"k": k, "s": sum(range(k, 90, 3))} for k in range(3)]


def test_a_worker_is_killed(on_cluster: Any, files: dict[str, Path]) -> None:
    worker = on_cluster.cluster.tasks().submit(os.getpid).result()
    at: list[Any] = []
    killed = threading.Thread(target=_kill_when_it_works, args=(on_cluster, worker, at))
    killed.start()
    slow = QUERY.replace("amount > 10", "amount > 10 AND length(repeat(amount::VARCHAR, 3000)) > 0")
    found = on_cluster(slow, *inputs(files), sql=True)
    killed.join()
    assert found.equals(expected(files))
    assert at[0].stage == "map"
    assert at[0].done < at[0].total


def _kill_when_it_works(run: Any, worker: int, at: list[Any]) -> None:
    deadline = time.monotonic() + 60
    while not any(p.stage == "map" and p.done >= 1 for p in run.progress) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(worker, signal.SIGKILL)
    at.append(run.progress[-1])
