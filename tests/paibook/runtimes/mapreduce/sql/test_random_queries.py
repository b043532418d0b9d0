"""Random queries over random tables: whatever the query, it is answered as DuckDB answers it in one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("duckdb")
pytest.importorskip("sqlglot")

from paibook.runtimes.mapreduce.sql import cells

INTEGERS = st.none() | st.integers(-3, 4)
FRACTIONS = st.none() | st.sampled_from([-1.5, -0.0, 0.0, 1.0, 2.0, 2.25, float("nan")])
TEXTS = st.none() | st.sampled_from(["", "a", "b", "B", "é"])
COLUMNS = {
    "t": {"a": (INTEGERS, pyarrow.int32()), "b": (FRACTIONS, pyarrow.float64()), "c": (TEXTS, pyarrow.string())},
    "u": {"a": (INTEGERS, pyarrow.int64()), "d": (FRACTIONS, pyarrow.float64()), "c": (TEXTS, pyarrow.string())},
}
NUMBERS = {"t": ("a", "b"), "u": ("a", "d")}


@st.composite
def tables(draw: Any) -> dict[str, pyarrow.Table]:
    made = {}
    for name, columns in COLUMNS.items():
        rows = draw(st.integers(0, 12))
        made[name] = pyarrow.table(
            {
                column: pyarrow.array(draw(st.lists(values, min_size=rows, max_size=rows)), type)
                for column, (values, type) in columns.items()
            }
        )
    return made


def column(draw: Any, aliases: dict[str, str], numeric: bool = False) -> str:
    alias = draw(st.sampled_from(sorted(aliases)))
    names = NUMBERS[aliases[alias]] if numeric else tuple(COLUMNS[aliases[alias]])
    return f"{alias}.{draw(st.sampled_from(names))}"


def expression(draw: Any, aliases: dict[str, str]) -> str:
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return f"{column(draw, aliases, True)} * 2 + 1"
    return f"coalesce({column(draw, aliases, True)}, 0)" if kind == 1 else column(draw, aliases)


def condition(draw: Any, aliases: dict[str, str]) -> str:
    number = column(draw, aliases, True)
    alias = draw(st.sampled_from(sorted(aliases)))
    simple = [f"{number} > 0", f"{number} IS NULL", f"{number} IN (1, 2)", f"{alias}.c >= 'a'", f"{number} <> 1"]
    one, other = draw(st.sampled_from(simple)), draw(st.sampled_from(simple))
    return draw(st.sampled_from([one, f"{one} AND {other}", f"{one} OR {other}", f"NOT ({one})"]))


def source(draw: Any) -> tuple[str, dict[str, str]]:
    first = draw(st.sampled_from(["t", "u"]))
    text, aliases = f"{first} x", {"x": first}
    for alias in ("y", "z")[: draw(st.integers(0, 2))]:
        table = draw(st.sampled_from(["t", "u"]))
        kind = draw(st.sampled_from(["JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "SEMI JOIN", "ANTI JOIN"]))
        key = draw(
            st.sampled_from([f"x.a = {alias}.a", f"x.c = {alias}.c", f"{column(draw, aliases, True)} = {alias}.a"])
        )
        more = f" AND {condition(draw, {alias: table})}" if draw(st.booleans()) else ""
        text += f" {kind} {table} {alias} ON {key}{more}"
        if "SEMI" not in kind and "ANTI" not in kind:
            aliases[alias] = table
    return text, aliases


def subquery(draw: Any, aliases: dict[str, str]) -> str:
    """A condition that asks another table."""
    table, outer = draw(st.sampled_from(["t", "u"])), column(draw, aliases, True)
    more = f" AND {condition(draw, {'q': table})}" if draw(st.booleans()) else ""
    compared = f" AND q.a <> {column(draw, aliases, True)}" if draw(st.booleans()) else ""
    forms = [
        f"{outer} IN (SELECT a FROM {table} q WHERE true{more})",
        f"EXISTS (SELECT 1 FROM {table} q WHERE q.a = {outer}{more}{compared})",
        f"NOT EXISTS (SELECT q.c FROM {table} q WHERE q.a = {outer}{more}{compared})",
        f"{outer} > (SELECT min(a) FROM {table} q WHERE true{more})",
        f"{outer} NOT IN (SELECT a FROM {table} q WHERE true{more})",
    ]
    return str(draw(st.sampled_from(forms)))


AGGREGATES = ["count(*)", "count({})", "sum({})", "min({})", "max({})", "avg({})", "count(DISTINCT {})"]
MORE = ["median({})", "sum({}) FILTER (WHERE {} > 0)", "sum(DISTINCT {})", "bool_or({} > 1)", "max({}) - min({})"]


@st.composite
def queries(draw: Any) -> tuple[str, bool]:
    """A query, and whether its rows have one order."""
    text, aliases = source(draw)
    conditions = [condition(draw, aliases)] if draw(st.booleans()) else []
    conditions += [subquery(draw, aliases)] if draw(st.integers(0, 3)) == 0 else []
    where = f" WHERE {' AND '.join(f'({c})' for c in conditions)}" if conditions else ""
    kind = draw(st.sampled_from(["rows", "distinct", "groups", "groups", "window"]))
    if kind == "window":
        part, number = column(draw, aliases), column(draw, aliases, True)
        items = [part, f"count(*) OVER (PARTITION BY {part})", f"max({number}) OVER (PARTITION BY {part})"]
        return f"SELECT {', '.join(items)} FROM {text}{where}", False
    items = [expression(draw, aliases) for _ in range(draw(st.integers(1, 3)))]
    tail = ""
    if kind == "groups":
        keys = items[: draw(st.integers(0, len(items)))]
        calls = draw(st.lists(st.sampled_from(AGGREGATES + MORE), min_size=1, max_size=3))
        called = [call.replace("{}", column(draw, aliases, True)) for call in calls]
        items = keys + called
        tail = f" GROUP BY {', '.join(map(str, range(1, len(keys) + 1)))}" if keys else ""
        if draw(st.booleans()):
            tail += " HAVING count(*) > 1"
    start = "SELECT DISTINCT" if kind == "distinct" else "SELECT"
    query = f"{start} {', '.join(f'{item} AS i{n}' for n, item in enumerate(items))} FROM {text}{where}{tail}"
    if draw(st.booleans()):
        order = ", ".join(f"{n} {draw(st.sampled_from(['', 'DESC', 'NULLS FIRST']))}" for n in range(1, len(items) + 1))
        limit = draw(st.sampled_from(["", " LIMIT 3", " LIMIT 2 OFFSET 2", " OFFSET 1"]))
        return f"{query} ORDER BY {order}{limit}", True
    if draw(st.integers(0, 3)) == 0:
        word = draw(st.sampled_from(["UNION", "UNION ALL", "INTERSECT", "EXCEPT", "EXCEPT ALL"]))
        return f"{query} {word} {query}", False
    if draw(st.integers(0, 3)) == 0:
        return f"SELECT i0, count(*) AS n FROM ({query}) q GROUP BY i0", False
    return query, False


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(tables(), queries(), st.sampled_from(["b", "d", "none"]))
def test_random_queries(
    oracle: Callable[..., Any], made: dict[str, pyarrow.Table], query: tuple[str, bool], small: str
) -> None:
    text, ordered = query
    with pytest.MonkeyPatch.context() as patch:  # every task is given all of one table, or of none
        patch.setattr(cells._Input, "is_small", property(lambda self: small in self.schema.names))
        oracle(made).check(text, ordered=ordered, divided=None)
