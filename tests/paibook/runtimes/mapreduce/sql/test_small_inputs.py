"""Joins with small inputs, which every task is given: nothing is shuffled for them, and the answers are DuckDB's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("duckdb")
pytest.importorskip("sqlglot")

from paibook.clusters.inline import InlineTasks
from paibook.errors import PaibookError
from paibook.runtimes.mapreduce.sql import cells
from paibook.runtimes.mapreduce.sql.programs import compiled

SALES = pyarrow.table(
    {
        "id": range(400),
        "customer": pyarrow.array([7 if i % 2 else i % 11 if i % 13 else None for i in range(400)], pyarrow.int32()),
        "price": [i % 23 / 4 for i in range(400)],
        "note": ["a note that makes a sale larger than a customer " * 3] * 400,
    }
)
CUSTOMERS = pyarrow.table(
    {
        "customer": pyarrow.array([0.0, 1.0, 2.0, 3.0, 7.0, 7.0, None, 99.0], pyarrow.float64()),
        "name": ["Ann", "Bob", "Cat", "Dan", "Eve", "Eva", "Nil", None],
        "region": pyarrow.array([1, 1, 2, 2, 3, 3, None, 4], pyarrow.int8()),
    }
)
REGIONS = pyarrow.table({"region": [1, 2, 3, 5], "title": ["north", "south", "east", "west"]})
NOTHING = pyarrow.table({"customer": pyarrow.array([], pyarrow.int64()), "x": pyarrow.array([], pyarrow.float64())})
TABLES = {"sales": SALES, "customers": CUSTOMERS, "regions": REGIONS, "nothing": NOTHING}
SMALL = 20_000  # bytes: all but the sales

MAP_ONLY = {
    "inner": "SELECT s.id, c.name FROM sales s JOIN customers c ON s.customer = c.customer",
    "inner, the small one first": "SELECT id, name FROM customers c JOIN sales s USING (customer) WHERE name < 'F'",
    "left": "SELECT s.id, c.name FROM sales s LEFT JOIN customers c ON s.customer = c.customer AND c.region < 3",
    "left of nothing": "SELECT s.id, n.x FROM sales s LEFT JOIN nothing n USING (customer)",
    "semi": "SELECT id FROM sales s SEMI JOIN customers c ON s.customer = c.customer",
    "anti": "SELECT id FROM sales s ANTI JOIN customers c ON s.customer = c.customer AND c.region = 3",
    "in": "SELECT id FROM sales WHERE customer IN (SELECT customer FROM customers WHERE region = 1)",
    "not exists": "SELECT id FROM sales s WHERE NOT EXISTS (SELECT 1 FROM customers c WHERE c.customer = s.customer)",
    "a chain": "SELECT id, name, title FROM sales JOIN customers USING (customer) LEFT JOIN regions USING (region)",
    "the same one twice": "SELECT a.id, b.name, c.region FROM sales a JOIN customers b ON a.customer = b.customer "
    "LEFT JOIN customers c ON c.region = a.id",
    "both of a union": "SELECT u.id, name FROM (SELECT id, customer FROM sales UNION ALL SELECT 1, id FROM sales) u "
    "JOIN customers c ON u.customer = c.customer",
    "small ones that join each other": "SELECT s.id, c.name, r.title FROM regions r, customers c, sales s "
    "WHERE r.region = c.region AND c.customer = s.customer",
    "nothing but its rows": "SELECT s.id FROM sales s JOIN regions r ON true",
    "nothing of either": "SELECT 1 AS one FROM sales CROSS JOIN regions",
    "the order of numbers": "SELECT s.id, r.title FROM sales s JOIN regions r ON s.customer < r.region",
    "no equality, left": "SELECT s.id, r.title FROM sales s LEFT JOIN regions r ON s.customer % 6 < r.region",
    "texts and numbers": "SELECT s.id, r.title FROM sales s JOIN regions r ON s.id = r.region::VARCHAR",
    "columns named alike": "SELECT s.customer, c.customer FROM sales s JOIN customers c ON s.customer = c.customer",
}
SHUFFLED = {
    "groups": "SELECT name, sum(price), count(*) FROM sales JOIN customers USING (customer) GROUP BY name",
    "groups by the key": "SELECT c.customer, count(*) FROM sales s JOIN customers c USING (customer) GROUP BY 1",
    "after a shuffle": "SELECT g.n, c.name FROM (SELECT customer, count(*) AS n FROM sales GROUP BY 1) g "
    "JOIN customers c USING (customer)",
    "after a gathering": "SELECT id, name FROM (SELECT * FROM sales ORDER BY id LIMIT 30) s JOIN customers c "
    "ON s.customer = c.customer ORDER BY id, name",
    "before a join": "SELECT a.id, b.id, name FROM sales a JOIN customers c ON a.customer = c.customer "
    "JOIN sales b ON b.id = a.id + c.region",
    "between joins": "SELECT a.id, b.id, name FROM sales a LEFT JOIN sales b ON a.id = b.id + 1 "
    "LEFT JOIN customers c ON c.customer = b.customer",
    "the right one stays": "SELECT id, name FROM sales s RIGHT JOIN customers c ON s.customer = c.customer",
    "both stay": "SELECT id, name FROM sales s FULL JOIN customers c ON s.customer = c.customer",
    "the left one stays": "SELECT id, name FROM customers c LEFT JOIN sales s ON s.customer = c.customer",
    "both are small": "SELECT name, title FROM customers JOIN regions USING (region)",
    "a union of a large and a small one": "SELECT u.customer, name FROM (SELECT customer FROM sales UNION ALL "
    "SELECT region FROM regions) u JOIN customers c ON u.customer = c.customer ORDER BY ALL",
    "sets": "SELECT name FROM sales JOIN customers USING (customer) EXCEPT SELECT name FROM customers WHERE region = 1",
    "a condition of three": "SELECT s.id, r.title FROM regions r, customers c, sales s "
    "WHERE r.region = c.region AND r.region + c.customer = s.id",
    "a window": "SELECT id, count(*) OVER (PARTITION BY name) AS n FROM sales JOIN customers USING (customer)",
    "a cte read twice": "WITH t AS (SELECT id, name FROM sales JOIN customers USING (customer)) "
    "SELECT a.id, b.name FROM t a JOIN t b ON a.id = b.id + 1",
    "numbers drawn once": "SELECT count(DISTINCT r) AS n FROM sales "
    "JOIN (SELECT customer, random() AS r FROM customers) USING (customer)",
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "SMALL", SMALL)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("query", MAP_ONLY.values(), ids=MAP_ONLY.keys())
def test_nothing_is_shuffled(oracle: Callable[..., Any], query: str) -> None:
    asked = oracle(TABLES)
    asked.check(query)
    assert asked.stages == ["map"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("query", SHUFFLED.values(), ids=SHUFFLED.keys())
def test_beside_shuffles(oracle: Callable[..., Any], query: str) -> None:
    oracle(TABLES).check(query)


COLUMNS = {
    "large": {"a": pyarrow.int32(), "b": pyarrow.float64(), "c": pyarrow.string()},
    "small": {"a": pyarrow.int64(), "d": pyarrow.float64(), "c": pyarrow.string()},
}
VALUES = {
    "a": st.none() | st.integers(-1, 3),
    "b": st.none() | st.sampled_from([-1.0, -0.0, 0.0, 2.0, float("nan")]),
    "c": st.none() | st.sampled_from(["", "a", "b"]),
}
CONDITIONS = ["x.a = y.a", "x.c = y.c", "x.a = y.a AND x.c <> y.c", "x.b = y.d AND y.a > 0", "x.b = y.a", "x.a < y.d"]
JOINS = ["JOIN", "LEFT JOIN", "SEMI JOIN", "ANTI JOIN", "RIGHT JOIN", "FULL JOIN"]


@st.composite
def joins(draw: Any) -> tuple[dict[str, pyarrow.Table], str]:
    made = {}
    for name, types in COLUMNS.items():
        rows = draw(st.integers(0, 10))
        values = {column: st.lists(VALUES.get(column, VALUES["b"]), min_size=rows, max_size=rows) for column in types}
        made[name] = pyarrow.table({c: pyarrow.array(draw(some), types[c]) for c, some in values.items()})
    kind, on = draw(st.sampled_from(JOINS)), draw(st.sampled_from(CONDITIONS))
    first, second = draw(st.sampled_from([("large x", "small y"), ("small y", "large x")]))
    alias = first[-1]
    items = (
        f"{alias}.*" if kind in ("SEMI JOIN", "ANTI JOIN") else "x.a AS xa, x.b, x.c AS xc, y.a AS ya, y.d, y.c AS yc"
    )
    more = draw(
        st.sampled_from(["", f" WHERE {alias}.a > 0", f" WHERE {alias}.c IN (SELECT c FROM small z WHERE z.d = 0)"])
    )
    text = f"SELECT {items} FROM {first} {kind} {second} ON {on}{more}"
    return made, draw(st.sampled_from([text, f"SELECT COLUMNS(*)::VARCHAR, count(*) AS n FROM ({text}) GROUP BY ALL"]))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(joins())
def test_random_joins(oracle: Callable[..., Any], join: tuple[dict[str, pyarrow.Table], str]) -> None:
    tables, query = join
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells._Input, "is_small", property(lambda self: "d" in self.schema.names))
        oracle(tables).check(query, divided=None)


SCHEMAS = {name: table.schema for name, table in TABLES.items()}


def test_what_is_sent() -> None:
    query = "SELECT id, name FROM sales JOIN customers USING (customer) WHERE region + 1 > 2 AND price > 1"
    made = compiled(query, "Cell In[1]", SCHEMAS, {"customers"})
    (sent,) = made.small
    assert (sent.input, sent.columns) == ("customers", ("customer", "name", "region"))
    assert "> 2" in sent.text
    assert "> 2" not in made.program.source
    assert made.columns == {"sales": ("id", "customer", "price")}
    assert made.flows == (("all_customers", sent.name, "map_sales"), ("map_sales", "", ""))


def ask(run: Any, query: str, *names: str, **tables: Any) -> Any:
    inputs = [{"variable": name, "name": name} for name in tables]
    return run(query, *inputs, *names, variables=tables, sql=True)


JOIN = "SELECT count(name) AS n FROM sales JOIN customers USING (customer)"


def stages(run: Any) -> dict[str, int]:
    return {stage["name"]: stage["records_in"] for stage in run.summary["stages"]}


@pytest.mark.usefixtures("small")
def test_a_hot_key_is_joined_where_it_lies(run: Any) -> None:
    ask(run, JOIN, sales=SALES, customers=CUSTOMERS)
    assert stages(run) == {"map": 400, "reduce": 8}


@pytest.mark.usefixtures("small")
def test_workers_that_share_no_files(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InlineTasks, "shares", lambda self, path: False)
    assert len(ask(run, "SELECT id FROM sales JOIN regions ON true", sales=SALES, regions=REGIONS)) == 1600


def test_a_large_one_is_needed(run: Any) -> None:
    ask(run, JOIN, sales=SALES, customers=CUSTOMERS)
    assert stages(run) == {"map": 408, "reduce": 408, "reduce2": 3}


def test_a_file_that_is_larger_in_memory(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = 20_000
    path = tmp_path / "customers.parquet"
    names = pyarrow.array(["Ann Other"] * rows)
    pyarrow.parquet.write_table(pyarrow.table({"customer": range(rows), "name": names}), path, compression="zstd")
    large = pyarrow.table({"customer": range(rows), "note": [f"note {i * i}" for i in range(rows)]})
    most = 2 * path.stat().st_size
    monkeypatch.setattr(cells, "SMALL", most)
    found = ask(run, JOIN, {"path": str(path), "name": "customers"}, sales=large)  # type: ignore[arg-type]
    assert found["n"].tolist() == [rows]
    assert stages(run)["reduce"] == 2 * rows


@pytest.mark.usefixtures("small")
def test_a_value_that_cannot_be_cast(run: Any) -> None:
    query = "SELECT id FROM sales WHERE customer IN (SELECT CAST(name AS INTEGER) FROM customers)"
    with pytest.raises(PaibookError, match="Conversion Error: Could not convert string 'Ann' to INT32"):
        ask(run, query, sales=SALES, customers=CUSTOMERS)


@pytest.mark.usefixtures("small")
def test_a_share_of_the_input(run: Any) -> None:
    inputs = [{"variable": name, "name": name} for name in ("sales", "customers")]
    tables = {"sales": SALES, "customers": CUSTOMERS}
    query = "SELECT count(*) AS n FROM sales LEFT JOIN customers ON false"
    found = run(query, *inputs, variables=tables, sql=True, sample=0.5)
    assert 100 < found["n"][0] < 300
