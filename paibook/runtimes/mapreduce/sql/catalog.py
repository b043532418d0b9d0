"""The catalog: a DuckDB in the notebook's process with the tables of a query, all empty, that knows every type.

DuckDB itself says what is wrong with a query: before anything is launched, in its own words, at the cell's own line.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow

from paibook.errors import PlanError, ProgramError
from paibook.runtimes.mapreduce.outline import MAGIC
from paibook.runtimes.mapreduce.sql.fragments import described, is_unshown, opened, quoted

_MEMORY = 256 << 20
_LINE = re.compile(r"\n\s*LINE (\d+): (.*)\n", re.DOTALL)


class Catalog:
    """Empty tables, and the types of whatever is asked of them. Close it, or use it in a ``with`` statement.

    Args:
        schemas: Those of the query's inputs, by name.
        small: Inputs that every task may be given whole.

    Raises:
        PlanError: Two inputs whose names SQL does not tell apart.
    """

    def __init__(self, schemas: Mapping[str, pyarrow.Schema], small: Collection[str] = ()) -> None:
        self._connection = opened(_MEMORY)
        self.small = frozenset(small)
        self.inputs: dict[str, dict[str, str]] = {}
        for name, schema in schemas.items():
            other = next((known for known in self.inputs if known.lower() == name.lower()), None)
            if other is not None:
                raise PlanError(f"-i {name}=... and -i {other}=...: SQL does not tell these names apart; rename one")
            self._connection.register(name, schema.empty_table())
            self.inputs[name] = described(self._connection, f"FROM {quoted(name)}")

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def types(self, text: str) -> dict[str, str]:
        """The types of a query's columns, by name.

        Raises:
            duckdb.Error: It cannot be bound.
        """
        return described(self._connection, text)

    def create(self, name: str, types: Mapping[str, str]) -> None:
        """Add an empty table."""
        columns = ", ".join(f"{quoted(column)} {type}" for column, type in types.items())
        self._connection.execute(f"CREATE OR REPLACE TABLE {quoted(name)} ({columns})")

    def result(self, text: str, filename: str) -> dict[str, str]:
        """The types of a query's columns, by their names, which DuckDB makes different.

        Args:
            text: The query, as the cell has it.
            filename: The cell.

        Raises:
            ProgramError: DuckDB refuses the query, and the cell's line is named, or a column is of a type that cannot
                be shown.
        """
        try:
            # Inside of a query columns must have names of their own.
            types = described(self._connection, f"FROM ({text}\n)")
        except duckdb.Error as error:
            raise refused(error, text, filename) from None
        for name, type in types.items():
            if is_unshown(type):
                raise ProgramError(
                    f"{MAGIC} --sql: {filename}: the column {name!r} is of the type {type}, of which DuckDB makes no "
                    "DataFrame; CAST it to another one, such as VARCHAR"
                )
        return types

    def schema(self, text: str) -> pyarrow.Schema:
        """A query's columns as Arrow has them."""
        return self._connection.sql(f"FROM ({text}) LIMIT 0").to_arrow_table().schema

    def values(self, texts: Sequence[str]) -> tuple[Any, ...]:
        """What some expressions are now, at one and the same time."""
        row = self._connection.execute(f"SELECT {', '.join(texts)}").fetchone()
        assert row is not None
        return row

    def aggregates(self) -> frozenset[str]:
        """The names of DuckDB's aggregate functions."""
        text = "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type = 'aggregate'"
        return frozenset(row[0] for row in self._connection.execute(text).fetchall())


def refused(error: duckdb.Error, text: str, filename: str) -> ProgramError:
    """DuckDB's error about a cell's query as one that names the cell's line."""
    message = str(error)
    found = _LINE.search(message + "\n")
    said = re.split(r"\n\s*Candidate functions:", _LINE.split(message + "\n")[0])[0].strip()
    said = said.replace("\n", "; ")
    if found is None:
        return ProgramError(f"{MAGIC} --sql: {filename}: {said}")
    line = int(found[1])
    lines = text.split("\n")
    shown = f"\n    {lines[line - 1].strip()}" if line <= len(lines) else ""
    return ProgramError(f"{MAGIC} --sql: {filename}, line {line}: {said}{shown}")
