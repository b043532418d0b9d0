"""Queries whose notebook is killed: another process goes on with them from the tasks that had finished."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

pytest.importorskip("duckdb")
pytest.importorskip("sqlglot")

import duckdb

from paibook.history import RunHistory
from paibook.runtimes.contract import Progress
from paibook.runtimes.mapreduce.checkpoint import Checkpoint
from paibook.session import Session

pytestmark = pytest.mark.slow

ROWS = 40_000
QUERY = """
    SELECT CAST(lpad(kind::VARCHAR, 32, '0') AS UUID) AS id, name, sum(amount) AS total,
        count(DISTINCT length(repeat(amount::VARCHAR, 300))) AS lengths
    FROM sales JOIN kinds USING (kind)
    GROUP BY kind, name
    ORDER BY kind
"""
NOTEBOOK = """
import os, signal, sys
from pathlib import Path

import pandas
from paibook.history import RunHistory
from paibook.plan import Plan
from paibook.program import Program
from paibook.runtimes.mapreduce.sql import cells
from paibook.session import Session

root, sales, stage, out, small, query = sys.argv[1:]
cells.SMALL = int(small)

def end(progress):
    if progress.stage == stage and progress.done >= 1:
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    session = Session(history=RunHistory(Path(root)))
    inputs = [{"path": sales, "name": "sales"}, {"variable": "kinds", "name": "kinds"}]
    options = {"inputs": inputs, "sql": True, "reducers": 6, "out_kind": "path" if out else "none", "out": out or None}
    kinds = pandas.DataFrame({"kind": range(30), "name": [f"kind {i}" for i in range(30)]})
    session.run(Plan("mapreduce", Program(query, "cell"), options=options), {"kinds": kinds}, None, end).result()
"""


@pytest.fixture(scope="module")
def sales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables") / "sales.parquet"
    table = pyarrow.table({"kind": [i % 30 for i in range(ROWS)], "amount": [i % 997 for i in range(ROWS)]})
    pyarrow.parquet.write_table(table, path, row_group_size=ROWS // 20)
    return path


def killed(root: Path, sales: Path, stage: str, out: str, small: int) -> str:
    """Run the query in a process that is killed when a task of a stage has finished; gives the run's identifier."""
    script = root.parent / "notebook.py"
    script.write_text(NOTEBOOK)
    arguments = [str(root), str(sales), stage, out, str(small), QUERY]
    environment = {**os.environ, "PAIBOOK_WORKERS": "2"}
    notebook = subprocess.run([sys.executable, str(script), *arguments], env=environment, timeout=120)
    assert notebook.returncode == -9
    (record,) = RunHistory(root)
    assert record.state == "failed"
    return record.id


@pytest.mark.parametrize(
    ("stage", "out", "small"),
    [("map", "", 0), ("reduce", "out.parquet", 0), ("reduce2", "", 0), ("map", "", 10_000), ("reduce", "", 10_000)],
)
def test_a_query_goes_on_after_its_notebook_died(
    sales: Path, tmp_path: Path, stage: str, out: str, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, path = tmp_path / "runs", str(tmp_path / out) if out else ""
    run = killed(root, sales, stage, path, small)
    checkpoint = Checkpoint(RunHistory(root).directory(run))
    checkpoint.load()
    finished = set(checkpoint.finished(stage))
    assert finished

    monkeypatch.setenv("PAIBOOK_WORKERS", "2")
    seen: list[Progress] = []
    session = Session(history=RunHistory(root))
    try:
        found = session.resume(run, on_progress=seen.append).result(120)
    finally:
        session.close()
    if out:
        text = {"id": str, "total": "float64"}  # Parquet has no UUID and no HUGEINT
        assert pyarrow.parquet.read_table(path).to_pandas().astype(text).equals(expected(sales).astype(text))
    else:
        assert found.equals(expected(sales))
    assert ("reduce3" in {progress.stage for progress in seen}) == (not small)  # else the kinds are sent to every task
    first = next(progress for progress in seen if progress.stage == stage)
    assert first.done == len(finished) < (first.total or 0)
    assert not (RunHistory(root).directory(run) / "work").exists()
    assert RunHistory(root).find(run).state == "done"


def expected(sales: Path) -> Any:
    with duckdb.connect() as connection:
        connection.execute(f"CREATE VIEW sales AS FROM '{sales}'")
        connection.execute("CREATE VIEW kinds AS SELECT range AS kind, 'kind ' || range AS name FROM range(30)")
        return connection.sql(QUERY).df()
