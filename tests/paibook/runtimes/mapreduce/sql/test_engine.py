"""What the engine does for queries as for any program: few reducers, samples, folders, workers that share no files."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pyarrow.parquet
import pytest

from paibook.clusters.inline import InlineTasks

ROWS = pyarrow.table(
    {"k": [i % 5 for i in range(200)], "v": list(range(200)), "day": [f"2024-01-0{i % 3 + 1}" for i in range(200)]}
)
SUMS = "SELECT k, sum(v) AS s FROM t GROUP BY k"


def ask(run: Any, query: str, **options: Any) -> Any:
    return run(query, {"variable": "t", "name": "t"}, variables={"t": ROWS}, sql=True, **options)


def test_as_many_reduce_tasks_as_asked_for(run: Any) -> None:
    ask(run, SUMS, reducers=3)
    assert {stage["name"]: stage["tasks"] for stage in run.summary["stages"]} == {"map": 8, "reduce": 3}


def test_shares_of_groups_travel_not_rows(run: Any) -> None:
    ask(run, SUMS)
    map_, reduce_ = run.summary["stages"]
    assert map_["records_in"] == 200
    assert map_["records_out"] == reduce_["records_in"] == 8 * 5


def test_only_columns_that_are_needed_are_read(run: Any, tmp_path: Path) -> None:
    pyarrow.parquet.write_table(ROWS, tmp_path / "t.parquet")
    run("SELECT max(v) AS m FROM t", {"path": str(tmp_path / "t.parquet"), "name": "t"}, sql=True)
    assert 200 * 8 <= run.summary["stages"][0]["bytes_in"] < 200 * 9


def test_inputs_that_are_not_read_have_no_tasks(run: Any) -> None:
    inputs = [{"variable": name, "name": name} for name in ("t", "u")]
    run("SELECT count(*) FROM t", *inputs, variables={"t": ROWS, "u": ROWS}, sql=True)
    assert run.summary["stages"][0]["tasks"] == 8


def test_relations_skip_the_stages_that_do_not_need_them(run: Any) -> None:
    tables = {
        "a": [{"x": i} for i in range(20)],
        "b": [{"x": i, "y": i % 3} for i in range(20)],
        "c": [{"y": 1, "z": "one"}],
    }
    query = "SELECT a.x, z FROM a JOIN b ON a.x = b.x JOIN c ON b.y = c.y"
    run(query, *({"variable": name, "name": name} for name in tables), variables=tables, sql=True)
    stages = {stage["name"]: stage["records_in"] for stage in run.summary["stages"]}
    assert stages == {"map": 41, "reduce": 40, "reduce2": 21}


def test_workers_that_share_no_files(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InlineTasks, "shares", lambda self, path: False)
    groups = "SELECT k, count(*) AS n FROM t GROUP BY k"
    query = f"SELECT a.k, n, s FROM ({groups}) a JOIN (SELECT v, k AS s FROM t) b ON a.k = b.v"
    found = ask(run, query)
    assert Counter(map(tuple, found.values.tolist())) == Counter((k, 40, k) for k in range(5))


def test_a_share_of_the_input(run: Any) -> None:
    found = ask(run, "SELECT count(*) AS n FROM t", sample=0.25)
    assert 0 < found["n"][0] < 120


class TestPaths:
    def test_folders_by_column(self, run: Any, tmp_path: Path) -> None:
        out = tmp_path / "out.parquet"
        found = ask(run, "SELECT day, k, sum(v) AS s FROM t GROUP BY day, k", out=str(out), partition_by=["day"])
        assert sorted(path.name for path in out.iterdir()) == ["day=2024-01-01", "day=2024-01-02", "day=2024-01-03"]
        assert found.rows == 15

    def test_json_lines_have_numbers_and_dates_as_text(self, run: Any, tmp_path: Path) -> None:
        out = tmp_path / "out.jsonl"
        ask(run, "SELECT sum(v) AS s, max(day)::DATE AS d, sum(v)::DECIMAL(9, 1) AS c, NULL AS n FROM t", out=str(out))
        (line,) = next(out.glob("*.jsonl")).read_text().splitlines()
        assert json.loads(line) == {"s": 19900, "d": "2024-01-03", "c": 19900.0, "n": None}

    @pytest.mark.parametrize("ending", ["parquet", "csv"])
    def test_nothing_still_has_columns(self, run: Any, tmp_path: Path, ending: str) -> None:
        out = tmp_path / f"out.{ending}"
        ask(run, SUMS + " HAVING sum(v) < 0", out=str(out))
        read = pandas.read_parquet if ending == "parquet" else pandas.read_csv
        frame = read(next(out.glob(f"*.{ending}")))
        assert frame.columns.tolist() == ["k", "s"]
        assert len(frame) == 0

    def test_an_order_is_one_file(self, run: Any, tmp_path: Path) -> None:
        out = tmp_path / "out.csv"
        ask(run, "SELECT v FROM t ORDER BY v DESC", out=str(out))
        (file,) = out.glob("*.csv")
        assert pandas.read_csv(file)["v"].tolist() == list(range(199, -1, -1))


class TestInputs:
    def table(self, run: Any, query: str, path: Path, **options: Any) -> Any:
        return run(query, {"path": str(path), "name": "t"}, sql=True, **{"as": "list"}, **options)

    def test_csv_with_a_header_alone(self, run: Any, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text("a,B\n")
        assert self.table(run, "SELECT count(*) AS n, max(b) AS m FROM t", tmp_path / "t.csv") == [{"n": 0, "m": None}]

    def test_files_with_different_columns(self, run: Any, tmp_path: Path) -> None:
        (tmp_path / "t").mkdir()
        pyarrow.parquet.write_table(pyarrow.table({"a": [1, 2]}), tmp_path / "t" / "1.parquet")
        pyarrow.parquet.write_table(pyarrow.table({"a": [0.5], "b": ["x"]}), tmp_path / "t" / "2.parquet")
        found = self.table(run, "SELECT a, b FROM t ORDER BY a", tmp_path / "t")
        assert found == [{"a": 0.5, "b": "x"}, {"a": 1.0, "b": None}, {"a": 2.0, "b": None}]

    def test_json_lines(self, run: Any, tmp_path: Path) -> None:
        (tmp_path / "t.jsonl").write_text('{"a": 1}\n{"a": 2, "b": {"c": "x"}}\n')
        assert self.table(run, "SELECT b.c, a FROM t WHERE a > 1", tmp_path / "t.jsonl") == [{"c": "x", "a": 2}]

    def test_text(self, run: Any, tmp_path: Path) -> None:
        (tmp_path / "t.txt").write_text("to be\nor not to be\n")
        query = """
            SELECT word, count(*) AS n
            FROM (SELECT unnest(string_split(line, ' ')) AS word FROM t)
            GROUP BY word ORDER BY n DESC, word LIMIT 2
        """
        assert self.table(run, query, tmp_path / "t.txt") == [{"word": "be", "n": 2}, {"word": "to", "n": 2}]

    def test_folders_that_are_columns(self, run: Any, tmp_path: Path) -> None:
        for year in (2023, 2024):
            (tmp_path / "t" / f"year={year}").mkdir(parents=True)
            (tmp_path / "t" / f"year={year}" / "x.csv").write_text("v\n1\n2\n")
        found = self.table(run, "SELECT year, sum(v) AS s FROM t WHERE year > 2023 GROUP BY year", tmp_path / "t")
        assert found == [{"year": 2024, "s": 3}]

    def test_records_of_different_kinds(self, run: Any) -> None:
        rows = [{"a": 1, "b": None}] * 9 + [{"a": 2.5, "c": "x"}] * 9
        inputs = {"variable": "t", "name": "t"}
        query = "SELECT sum(a) AS a, count(b) AS b, count(c) AS c FROM t"
        assert run(query, inputs, variables={"t": rows}, sql=True, **{"as": "list"}) == [{"a": 31.5, "b": 0, "c": 9}]

    def test_a_frame_without_rows(self, run: Any) -> None:
        frame = pandas.DataFrame({"a": pandas.Series([], dtype="int64")})
        found = run("SELECT a + 1 AS b FROM t", {"variable": "t", "name": "t"}, variables={"t": frame}, sql=True)
        assert found.columns.tolist() == ["b"]
        assert found["b"].dtype == "int64"
        assert len(found) == 0


def test_memory_that_is_bounded(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from paibook.runtimes.mapreduce.sql import fragments
    from paibook.runtimes.mapreduce.task import Task, running

    table = pyarrow.table({"s": [f"a name that is long enough {i * 7919 % 1_000_003}" for i in range(1_000_000)]})
    monkeypatch.setattr(fragments, "_LEAST", 24 << 20)
    with running(Task("map", 0, {}, run.directory, 24 << 20)):
        assert fragments.query("SELECT s FROM t ORDER BY s", {"t": table}, {}).num_rows == 1_000_000
    assert sum(path.stat().st_size for path in run.directory.rglob("*")) < 1 << 20


def test_the_program_runs_in_a_cell_of_its_own(run: Any, tmp_path: Path) -> None:
    from paibook.runtimes.mapreduce.sql.programs import compiled

    query = compiled(SUMS, "Cell In[1]", {"t": ROWS.schema})
    assert [stage.relations for stage in query.outline.stages] == [("t_1",)]
    assert query.flows == (("map_t", "t_1", "reduce"), ("reduce", "", ""))
    assert query.columns == {"t": ("k", "v")}
    query.program.compile()
    assert "SUM" in query.program.source


def test_the_process_can_fork_afterwards(run: Any) -> None:
    ask(run, SUMS)  # in a thread that lives on
    child = os.fork()
    if not child:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
