"""What the tests of queries need: an oracle, DuckDB over all data in one process, and a run of the same query."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("sqlglot")

import duckdb
import pyarrow

from paibook.clusters.inline import InlineCluster

Tables = Mapping[str, pyarrow.Table]
SLOTS = 2  # so that a variable is cut into 8 splits


def plain(value: Any) -> Any:
    """A value that equals what should be equal to it: sums of fractions depend on their order, NaN on nothing."""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else float(f"{value:.11g}") + 0.0
    if isinstance(value, (list, tuple)):
        return tuple(map(plain, value))
    if isinstance(value, dict):
        return tuple((name, plain(item)) for name, item in value.items())
    return value


def rows_of(table: pyarrow.Table) -> list[tuple[Any, ...]]:
    """A table's rows, plain, each value with its type."""
    columns = [[(type(v).__name__, plain(v)) for v in column.to_pylist()] for column in table.columns]
    return list(zip(*columns, strict=True))


def types_of(table: pyarrow.Table) -> list[str]:
    """The columns' types; Parquet has its own name for what is in a list."""
    return [re.sub(r"list<\w+:", "list<", str(field.type)) for field in table.schema]


class Oracle:
    """Asks DuckDB, and paibook, and compares.

    Args:
        run: Runs cells.
        tables: What can be read.
    """

    def __init__(self, run: Any, tables: Tables) -> None:
        self.run, self.tables = run, dict(tables)
        self.told: list[str] = []
        self.stages: list[str] = []

    def expected(self, query: str) -> pyarrow.Table:
        """What DuckDB answers in one process."""
        with duckdb.connect(":memory:", config={"threads": 1}) as connection:
            for name, table in self.tables.items():
                connection.register(name, table)
            relation = connection.sql(query)
            names = list(connection.sql(f"FROM ({query}\n) LIMIT 0").df().columns)
            return relation.to_arrow_table().rename_columns(names)

    def answer(self, query: str, **options: Any) -> pyarrow.Table:
        """What a cell answers, on several tasks."""
        self.run.events.clear()
        inputs = [{"variable": name, "name": name} for name in self.tables]
        path = self.run.directory / f"answer{self.run.runs}.parquet"
        made = self.run(query, *inputs, variables=self.tables, sql=True, out=str(path), **options)
        self.told = [event.data for event in self.run.events if event.kind == "stdout"]
        self.stages = [stage["name"] for stage in self.run.summary["stages"]]
        files = sorted(Path(made.path).rglob("*.parquet"))
        return pyarrow.concat_tables([pyarrow.parquet.read_table(file) for file in files])

    def check(self, query: str, ordered: bool = False, divided: bool | None = True, **options: Any) -> None:
        """Both answers are the same rows, in the same columns of the same types.

        Args:
            query: Any.
            ordered: Whether its rows have one order.
            divided: Whether it is expected to be divided as a whole; None for whatever comes.
        """
        expected, found = self.expected(query), self.answer(query, **options)
        assert found.column_names == expected.column_names
        assert types_of(found) == types_of(expected)
        one, other = rows_of(expected), rows_of(found)
        assert len(one) == len(other)
        if ordered:
            assert one == other
        assert Counter(map(repr, one)) == Counter(map(repr, other))
        assert divided in (None, not self.told), self.told


@pytest.fixture
def oracle(run: Any) -> Callable[[Tables], Oracle]:
    run.cluster = InlineCluster(slots=SLOTS)
    return lambda tables: Oracle(run, tables)
