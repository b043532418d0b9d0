"""How a query is laid out: its stages, what they gather, and what travels between them."""

from __future__ import annotations

import ast

import pyarrow
import pytest

pytest.importorskip("duckdb")
pytest.importorskip("sqlglot")

from paibook.runtimes.mapreduce.sql.programs import Compiled, compiled

SCHEMAS = {
    "t": pyarrow.schema([("a", pyarrow.int64()), ("b", pyarrow.string()), ("c", pyarrow.float64())]),
    "u": pyarrow.schema([("a", pyarrow.int64()), ("d", pyarrow.string())]),
    "v": pyarrow.schema([("a", pyarrow.int32()), ("e", pyarrow.string())]),
}


def query(text: str) -> Compiled:
    made = compiled(text, "Cell In[1]", SCHEMAS)
    made.program.compile()
    return made


def stages(text: str) -> list[str]:
    """What kinds of shuffles there are: one by key, or one that gathers."""
    found = query(text)
    assert found.reasons == ()
    if found.outline.is_map_only:
        return []
    return ["gathers" if stage.gathers else "by key" for stage in found.outline.stages]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT a + 1 AS x FROM t WHERE b = 'x'", []),
        ("SELECT a FROM t UNION ALL SELECT a FROM u", []),
        ("SELECT b, sum(c) FROM t GROUP BY b", ["by key"]),
        ("SELECT b, median(c) FROM t GROUP BY b", ["by key"]),
        ("SELECT count(*) FROM t", ["gathers"]),
        ("SELECT DISTINCT b FROM t", ["by key"]),
        ("SELECT b FROM t ORDER BY b LIMIT 3", ["gathers"]),
        ("SELECT b, sum(c) AS s FROM t GROUP BY b ORDER BY s LIMIT 3", ["by key", "gathers"]),
        ("SELECT t.a, d FROM t JOIN u ON t.a = u.a", ["by key"]),
        ("SELECT t.a, d, e FROM t JOIN u ON t.a = u.a JOIN v ON u.a = v.a", ["by key"]),
        ("SELECT t.a, x.a FROM t JOIN u ON t.a = u.a JOIN u x ON t.a = x.a", ["by key"]),
        ("SELECT t.a, count(*) FROM t LEFT JOIN u ON t.a = u.a GROUP BY t.a", ["by key"]),
        ("SELECT t.a, count(*) FROM t JOIN u ON t.a = u.a GROUP BY t.a, d", ["by key"]),
        ("SELECT d, count(*) FROM t JOIN u ON t.a = u.a GROUP BY d", ["by key", "by key"]),
        ("SELECT a, n FROM (SELECT a, count(*) AS n FROM t GROUP BY a) JOIN u USING (a)", ["by key"]),
        ("SELECT n, count(*) FROM (SELECT count(*) AS n FROM t GROUP BY b) GROUP BY n", ["by key", "by key"]),
        ("SELECT a, max(n) FROM (SELECT a, b, count(*) AS n FROM t GROUP BY a, b) GROUP BY a", ["by key", "by key"]),
        ("SELECT a, b, max(n) FROM (SELECT a, count(*) AS n, b FROM t GROUP BY a, b) GROUP BY ALL", ["by key"]),
        ("SELECT a, rank() OVER (PARTITION BY a ORDER BY c) FROM t", ["by key"]),
        ("SELECT a, count(*), rank() OVER (PARTITION BY a ORDER BY b) FROM t GROUP BY a, b", ["by key", "by key"]),
        ("SELECT a FROM t WHERE a IN (SELECT a FROM u)", ["by key"]),
        ("SELECT a FROM t EXCEPT SELECT a FROM u", ["by key"]),
    ],
)
def test_shuffles(text: str, expected: list[str]) -> None:
    assert stages(text) == expected


def test_a_sum_in_two_phases() -> None:
    made = query("SELECT b, sum(c) AS s FROM t WHERE a > 1 GROUP BY b")
    map_, reduce_ = (
        ast.unparse(node) for node in ast.parse(made.program.source).body if isinstance(node, ast.FunctionDef)
    )
    assert "SUM" in map_
    assert "> 1" in map_
    assert "SUM" in reduce_
    assert made.columns == {"t": ("a", "b", "c")}


def test_what_is_read_of_inputs() -> None:
    assert query("SELECT d FROM t JOIN u ON t.a = u.a WHERE c > 0").columns == {"t": ("a", "c"), "u": ("a", "d")}
    assert query("SELECT count(*) FROM t").columns == {"t": ("a",)}


def test_what_travels() -> None:
    flows = query("SELECT d, count(*) AS n FROM t JOIN u ON t.a = u.a GROUP BY d").flows
    assert set(flows) == {
        ("map_t", "t_1", "reduce"),
        ("map_u", "u_1", "reduce"),
        ("reduce", "t_2", "reduce2"),
        ("reduce2", "", ""),
    }


def test_the_result_has_duckdbs_types() -> None:
    made = query("SELECT sum(a) AS s, avg(a) AS m, a // 2 AS h FROM t GROUP BY a")
    assert list(map(str, made.schema.types)) == ["decimal128(38, 0)", "double", "int64"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("SELECT a FROM t WHERE c > (SELECT avg(c) FROM t)", "a query inside of an expression"),
        ("SELECT t.a FROM t, u", "a join of u without an equality"),
        ("SELECT t.a FROM t JOIN u ON t.b = u.a::VARCHAR AND t.c > 0 OR u.d = 'x'", "a join of u without an equality"),
        ("SELECT t.a FROM t JOIN u ON t.b = u.a", "a join that compares VARCHAR with BIGINT"),
        ("SELECT DISTINCT ON (a) a, b FROM t", "DISTINCT ON"),
        ("SELECT t.a FROM t ASOF JOIN u ON t.a >= u.a", "a join of the kind ASOF"),
    ],
)
def test_why_it_is_not_divided(text: str, reason: str) -> None:
    made = query(text)
    assert made.reasons == (reason,)
    assert [stage.gathers for stage in made.outline.stages] == [True]
