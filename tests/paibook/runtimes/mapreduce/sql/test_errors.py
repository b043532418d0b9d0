"""What a query's cell refuses, and in which words: before anything runs, wherever it can."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pytest

from paibook.errors import DataError, PlanError, ProgramError, UserCodeError
from paibook.runtimes.mapreduce.driver import Driver

USERS = pyarrow.table({"id": [1, 2, 3, None], "name": ["1", "2", "x", "4"]})
CELL = "%%pai_mapreduce --sql: Cell In[7]"


def ask(run: Any, query: str, **tables: Any) -> Any:
    tables = tables or {"users": USERS}
    return run(query, *({"variable": name, "name": name} for name in tables), variables=tables, sql=True)


def refused(run: Any, query: str, kind: type[Exception] = ProgramError, **tables: Any) -> str:
    with pytest.raises(kind) as caught:
        ask(run, query, **tables)
    assert not [event for event in run.progress if event.done], "something ran"
    return str(caught.value)


class TestBeforeTheRun:
    @pytest.mark.parametrize(
        ("query", "message"),
        [
            ("selec id from users", 'line 2: Parser Error: syntax error at or near "selec"'),
            ("SELECT id\nFROM users\nWHERE\n", "line 4: Parser Error: syntax error"),
            ("SELECT id\nFROM users LIMIT 1 LIMIT 2", "line 3: Parser Error"),
        ],
    )
    def test_syntax(self, run: Any, query: str, message: str) -> None:
        said = refused(run, query)
        assert said.startswith(f"{CELL}, {message}")

    def test_a_column_that_is_not_there(self, run: Any) -> None:
        said = refused(run, "SELECT id\nFROM users\nWHERE nme > 'a'")
        assert said.startswith(f'{CELL}, line 4: Binder Error: Referenced column "nme" not found')
        assert '"name"' in said
        assert said.endswith("\n    WHERE nme > 'a'")

    def test_an_ambiguous_column(self, run: Any) -> None:
        said = refused(run, "SELECT id FROM users a JOIN users b ON a.id = b.id")
        assert "Ambiguous reference" in said
        assert "line 2" in said

    def test_types_that_do_not_go_together(self, run: Any) -> None:
        said = refused(run, "SELECT sum(name) FROM users")
        assert "No function matches" in said
        assert "Candidate functions" not in said

    def test_a_column_outside_of_its_group(self, run: Any) -> None:
        assert "GROUP BY" in refused(run, "SELECT id, count(*) FROM users")

    @pytest.mark.parametrize(
        ("query", "kind"),
        [
            ("CREATE TABLE x AS SELECT 1", "CREATE"),
            ("INSERT INTO users VALUES (1)", "INSERT"),
            ("DELETE FROM users", "DELETE"),
            ("COPY users TO 'x.csv'", "COPY"),
            ("ATTACH 'x.db'", "ATTACH"),
            ("PRAGMA version", "PRAGMA"),
            ("SET threads = 8", "SET"),
            ("LOAD httpfs", "LOAD"),
            ("DESCRIBE users", "DESCRIBE"),
            ("EXPLAIN SELECT 1", "EXPLAIN"),
        ],
    )
    def test_another_statement(self, run: Any, query: str, kind: str, capfd: Any) -> None:
        said = refused(run, query)
        assert said == f"{CELL} is a statement of the kind {kind}; one SELECT over its inputs is expected"
        assert capfd.readouterr().err == ""

    @pytest.mark.parametrize(("query", "count"), [("SELECT 1; SELECT 2", 2), ("-- nothing", 0)])
    def test_one_statement(self, run: Any, query: str, count: int) -> None:
        assert refused(run, query) == f"{CELL} has {count} statements; one SELECT is expected"

    def test_a_semicolon_at_the_end_is_none(self, run: Any) -> None:
        assert len(ask(run, "SELECT id FROM users;\n")) == 4

    def test_a_pivot_of_unknown_columns(self, run: Any) -> None:
        assert "ON column IN (...)" in refused(run, "PIVOT users ON name USING count(*)")

    @pytest.mark.parametrize(
        ("table", "name", "hint"),
        [
            ("user", "user", "did you mean users?"),
            ("'data/more.csv'", "data/more.csv", "-i more=data/more.csv would make it one"),
            ("orders", "orders", "-i orders=PATH would make it one"),
            ("information_schema.tables", "tables", "-i tables=PATH would make it one"),
        ],
    )
    def test_a_table_that_is_no_input(self, run: Any, table: str, name: str, hint: str) -> None:
        said = refused(run, f"SELECT * FROM {table}")
        assert said == f"{CELL} reads {name!r}, which is none of its inputs (users); {hint}"

    @pytest.mark.parametrize(
        "call", ["read_csv('x.csv')", "read_parquet('x')", "glob('*')", "read_text('/etc/passwd')"]
    )
    def test_no_function_reads_files(self, run: Any, call: str) -> None:
        assert "file system operations are disabled" in refused(run, f"SELECT * FROM {call}")

    def test_inputs_that_sql_does_not_tell_apart(self, run: Any) -> None:
        said = refused(run, "SELECT 1 FROM a", PlanError, a=[{"x": 1}], A=[{"x": 1}])
        assert said == "-i a=... and -i A=...: SQL does not tell these names apart; rename one"

    def test_an_input_without_a_name(self, run: Any) -> None:
        with pytest.raises(PlanError, match="--sql needs a name for each input"):
            run("SELECT 1", {"variable": "users"}, variables={"users": USERS}, sql=True)

    def test_an_input_without_columns(self, run: Any) -> None:
        assert refused(run, "SELECT 1 FROM a", DataError, a=[]).startswith("the input 'a' has no columns")

    def test_columns_that_sql_does_not_tell_apart(self, run: Any) -> None:
        said = refused(run, "SELECT 1 FROM a", DataError, a=[{"x": 1, "X": 2}])
        assert said == "the input 'a' has columns 'x' and 'X', which SQL does not tell apart"

    def test_an_input_of_no_common_type(self, run: Any) -> None:
        rows = [{"x": 1}] * 8 + [{"x": "one"}] * 8
        assert "Field x has incompatible types" in refused(run, "SELECT x FROM a", DataError, a=rows)

    def test_checked_without_a_cluster(self, run: Any) -> None:
        plan = run.plan("SELECT x FROM b", {"variable": "a", "name": "a"}, sql=True)
        with pytest.raises(ProgramError, match="reads 'b'"):
            Driver().check(plan)


class TestWithoutTheLibraries:
    @pytest.mark.parametrize("name", ["duckdb", "sqlglot"])
    def test_says_what_to_install(self, run: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in [m for m in sys.modules if m.startswith("paibook.runtimes.mapreduce.sql.")]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, name, None)
        said = refused(run, "SELECT id FROM users")
        assert said == f"--sql needs {name}; install it with `pip install 'paibook[sql]'`, for the workers too"

    def test_they_are_not_loaded_by_others(self) -> None:
        import subprocess

        code = "import paibook, paibook.runtimes.mapreduce.driver, sys; print({'duckdb', 'sqlglot'} & set(sys.modules))"
        shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert shown.stdout == "set()\n"


class TestOnWorkers:
    def test_a_value_that_cannot_be_cast(self, run: Any) -> None:
        with pytest.raises(UserCodeError) as caught:
            ask(run, "SELECT CAST(name AS INTEGER) AS n FROM users")
        assert str(caught.value).startswith("map task 2, table 0 of its input: QueryError: Conversion Error: ")
        assert "'x'" in str(caught.value)
        assert "fragments.py" not in caught.value.traceback
        assert "Cell In[7], compiled" in caught.value.traceback

    def test_in_a_reduce(self, run: Any) -> None:
        with pytest.raises(UserCodeError, match=r"reduce task \d+: QueryError: Conversion Error"):
            ask(run, "SELECT max(name)::INTEGER FROM users GROUP BY name")

    def test_a_sum_that_overflows(self, run: Any) -> None:
        huge = pyarrow.table({"x": pyarrow.array([2**62, 2**62], pyarrow.int64())})
        with pytest.raises(UserCodeError, match="Out of Range Error"):
            ask(run, "SELECT (x + x) * 2 AS y FROM a", a=huge)

    def test_a_file_with_other_types_than_the_sample_said(self, run: Any, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.write_text("x\n" + "1\n" * 3_000_000 + "one\n")
        with pytest.raises((DataError, UserCodeError), match=r"a\.csv"):
            run("SELECT sum(x) FROM a", {"path": str(path), "name": "a"}, sql=True)


class TestTold:
    @pytest.mark.parametrize(
        ("query", "said"),
        [
            ("SELECT id FROM users WHERE id > (SELECT 1)", "the query runs in one task, since it has a query inside"),
            (
                "SELECT u.id, n FROM users u JOIN (SELECT id, count(*) AS n FROM users GROUP BY CUBE (id)) USING (id)",
                "a part of the query runs in one task, since it has GROUPING SETS, ROLLUP or CUBE",
            ),
        ],
    )
    def test_why_it_is_not_divided(self, run: Any, query: str, said: str) -> None:
        ask(run, query)
        (event,) = [event for event in run.events if event.kind == "stdout"]
        assert event.data.startswith(f"note: {said}")

    def test_nothing_where_it_is(self, run: Any) -> None:
        ask(run, "SELECT id, count(*) FROM users GROUP BY id ORDER BY id")
        assert run.events == []


class TestResults:
    def test_a_data_frame_as_duckdb_makes_it(self, run: Any) -> None:
        found = ask(run, "SELECT id, sum(id) AS s, id FROM users GROUP BY id ORDER BY id")
        assert isinstance(found, pandas.DataFrame)
        assert found.columns.tolist() == ["id", "s", "id_1"]
        assert found["s"].tolist()[:3] == [1.0, 2.0, 3.0]

    def test_dicts(self, run: Any) -> None:
        found = run(
            "SELECT sum(id) AS s, count(*) AS n FROM users",
            {"variable": "users", "name": "users"},
            variables={"users": USERS},
            sql=True,
            **{"as": "list"},
        )
        assert found == [{"s": 6, "n": 4}]
        assert type(found[0]["s"]) is int
