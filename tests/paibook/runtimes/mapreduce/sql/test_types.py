"""Types that Arrow, Python or a program's text does not have: values come as DuckDB's own client gives them."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("duckdb")
pytest.importorskip("sqlglot")

import duckdb

from paibook.errors import ProgramError

ROWS = pyarrow.table({"a": [1, 2, 3, 4, 5, 6], "b": ["x", "y", "x", "", None, "z"]})
MOST = 10**38 - 1  # of 38 digits

VALUES = {
    "a number or a text": "CASE WHEN a < 3 THEN union_value(number := a)::UNION(number BIGINT, text VARCHAR) "
    "ELSE union_value(text := coalesce(b, '-'))::UNION(number BIGINT, text VARCHAR) END",
    "a struct or a number": "CASE WHEN a < 3 THEN union_value(s := {'a': a})::UNION(s STRUCT(a BIGINT), n HUGEINT) "
    "ELSE union_value(n := a)::UNION(s STRUCT(a BIGINT), n HUGEINT) END",
    "huge numbers inside": "{'numbers': [a::HUGEINT, NULL]}",
    "variants": "CASE WHEN a < 3 THEN a::VARIANT ELSE b::VARIANT END",
    "uuids": "CAST(lpad(a::VARCHAR, 32, '0') AS UUID)",
    "enums": "CAST('x' AS ENUM ('x', 'y'))",
    "intervals": "INTERVAL (a) MONTH",
    "maps": "MAP {a: b}",
    "arrays": "[a, a + 1]::BIGINT[2]",
}


def ask(run: Any, query: str, **options: Any) -> Any:
    return run(query, {"variable": "t", "name": "t"}, variables={"t": ROWS}, sql=True, **options)


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
@pytest.mark.parametrize("clause", ["ORDER BY a", "WHERE a < 0"])
def test_as_duckdb_gives_them(run: Any, value: str, clause: str) -> None:
    query = f"SELECT {value} AS v, a FROM t {clause}"
    with duckdb.connect() as connection:
        connection.register("t", ROWS)
        rows, frame = connection.sql(query).fetchall(), connection.sql(query).df()
    found = ask(run, query, **{"as": "list"})
    assert found == [dict(zip("va", row, strict=True)) for row in rows]
    assert [type(row["v"]) for row in found] == [type(row[0]) for row in rows]
    shown = ask(run, query)
    assert shown.dtypes.tolist() == frame.dtypes.tolist()
    assert repr(shown) == repr(frame)


@pytest.mark.parametrize("type", ["UHUGEINT", "BIGNUM", "TIME WITH TIME ZONE", "UHUGEINT[]", "STRUCT(a BIGNUM)"])
def test_what_cannot_be_shown_is_refused(run: Any, type: str) -> None:
    with pytest.raises(ProgramError) as caught:
        ask(run, f"SELECT a, CAST(NULL AS {type}) AS v FROM t")
    assert str(caught.value) == (
        f"%%pai_mapreduce --sql: Cell In[7]: the column 'v' is of the type {type}, of which DuckDB makes no DataFrame; "
        "CAST it to another one, such as VARCHAR"
    )
    assert run.progress == []


def test_a_struct_may_have_a_field_called_as_a_type_is(oracle: Callable[..., Any]) -> None:
    oracle({"t": ROWS}).check("SELECT DISTINCT {'BIGNUM': a, 'UHUGEINT': b} AS s FROM t")


@pytest.mark.parametrize(
    "value",
    [
        "(340282366920938463463374607431768211455::UHUGEINT - a::UHUGEINT)",
        "{'bits': a::BIT}",
        "[a::BIGNUM]",
        "union_value(v := b::VARIANT)",
        "{'time': '10:00:00'::TIME::TIMETZ}",
        "union_value(v := b)",
    ],
)
def test_types_that_arrow_does_not_keep_do_not_travel(oracle: Callable[..., Any], value: str) -> None:
    query = f"SELECT v IS NULL AS n, v::VARCHAR AS v FROM (SELECT DISTINCT {value} AS v FROM t)"
    oracle({"t": ROWS}).check(query, divided=False)


def test_a_type_that_no_table_can_have(oracle: Callable[..., Any]) -> None:
    asked = oracle({"t": ROWS})
    asked.check("SELECT count(*) AS n FROM (SELECT DISTINCT row() AS x, a FROM t)", divided=False)
    assert "a column of a type that no table can have (one of TUPLE, BIGINT, UBIGINT)" in asked.told[0]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT b || '\0' AS v FROM t",
        "SELECT b || '\0' AS v, count(*) FROM t WHERE b <> '\0\\' GROUP BY 1",
        "SELECT b, '\0' AS v FROM t WHERE a > (SELECT min(a) FROM t) AND b <> '\0'",
    ],
)
def test_a_nul_in_a_text(oracle: Callable[..., Any], query: str) -> None:
    oracle({"t": ROWS}).check(query, divided=None)


def means(values: list[tuple[int, int]], scale: int) -> dict[str, pyarrow.Table]:
    numbers = [Decimal(f"{digits}E-{scale}") for _, digits in values]
    groups = pyarrow.array([group for group, _ in values], pyarrow.int64())
    return {"t": pyarrow.table({"g": groups, "x": pyarrow.array(numbers, pyarrow.decimal128(38, scale))})}


@pytest.mark.parametrize("scale", [0, 2, 37, 38])
def test_means_of_sums_beyond_38_digits(oracle: Callable[..., Any], scale: int) -> None:
    made = means([(i % 2, digits) for i, digits in enumerate([MOST, -MOST, MOST // 2, -MOST // 2, 5, 5])], scale)
    asked = oracle(made)
    asked.check("SELECT g, avg(x) AS m, avg(x) FILTER (WHERE x > 0) AS some FROM t GROUP BY g")
    asked.check("SELECT avg(x) AS m FROM t")


DIGITS = st.integers(-(10**36), 10**36) | st.integers(-9, 9)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 2), DIGITS), max_size=16), st.integers(0, 38))
def test_means_of_wide_decimals(oracle: Callable[..., Any], values: list[tuple[int, int]], scale: int) -> None:
    oracle(means(values, scale)).check("SELECT g, avg(x) AS m, count(x) AS n FROM t GROUP BY g")
