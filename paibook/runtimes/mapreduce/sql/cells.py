"""Cells that are queries, as the driver sees them: checked, planned over their inputs' splits, and their results."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Any

import psutil
import pyarrow

from paibook.clusters.contract import Tasks
from paibook.data.sources import input_splits, kind_of
from paibook.data.variables import is_collection
from paibook.plan import Plan
from paibook.program import Program
from paibook.runtimes.mapreduce.options import inputs_of
from paibook.runtimes.mapreduce.outline import Outline
from paibook.runtimes.mapreduce.sql.fragments import Types, opened, query, show
from paibook.runtimes.mapreduce.sql.inputs import TypedSplit, prunes, schema_of, stored_bytes
from paibook.runtimes.mapreduce.sql.programs import Compiled, Small, compiled
from paibook.runtimes.mapreduce.sql.statement import statement
from paibook.runtimes.mapreduce.table_shuffle import concat_tables, unpack_table
from paibook.runtimes.mapreduce.task import Task, running

__all__ = ["Compiled", "Planned", "compiled", "planned", "result", "shown", "statement", "told"]

SMALL = 8 << 20  # bytes of an input, as stored and in memory, that every task may be given
_UNCUT = 1 << 62  # bytes of a split, so that no file is read for the places to cut it at


@dataclass(frozen=True)
class Planned:
    """A query, ready to run.

    Attributes:
        program, outline: Those that run.
        variables: The program's.
        splits: Of the inputs that are read, with their names.
        schema: Of the result.
        types: DuckDB's, of the result's columns.
        told: What the reader is told, in lines.
    """

    program: Program
    outline: Outline
    variables: dict[str, Any]
    splits: list[tuple[Any, str]]
    schema: pyarrow.Schema
    types: Types
    told: tuple[str, ...]


def planned(
    program: Program, inputs: Collection[str], splits: Sequence[tuple[Any, str]], tasks: Tasks | None = None
) -> Planned:
    """Plan a cell's query.

    Args:
        program: The cell.
        inputs: Names of the inputs.
        splits: Of all inputs, each with its input's name.
        tasks: The cluster's, for inputs that are computed there.

    Raises:
        ProgramError: The query is wrong; names the cell's line.
        PlanError, DataError: An input that cannot be a table.
    """
    text = statement(program, inputs)
    by_input = {name: [split for split, of in splits if of == name] for name in inputs}
    schemas = {name: schema_of(name, some, tasks) for name, some in by_input.items()}
    read = {name: _Input(some, schemas[name]) for name, some in by_input.items()}
    query, variables = _with_small(text, program.filename, read)
    kept = [(split, name) for name, columns in query.columns.items() for split in read[name].typed(columns)]
    return Planned(query.program, query.outline, variables, kept, query.schema, query.types, told(query))


@dataclass(frozen=True)
class _Input:
    """An input of a query.

    Attributes:
        splits: Its own.
        schema: Its columns.
    """

    splits: list[Any]
    schema: pyarrow.Schema

    @property
    def is_small(self) -> bool:
        """Whether it is worth a look whether every task can be given it."""
        return stored_bytes(self.splits) <= SMALL

    def typed(self, columns: Sequence[str]) -> list[TypedSplit]:
        """The splits with some columns."""
        schema = pyarrow.schema([self.schema.field(column) for column in columns])
        pruned = prunes(self.splits, columns)
        return [TypedSplit(split, schema, pruned) for split in self.splits or [None]]

    def rows(self, columns: Sequence[str]) -> pyarrow.Table | None:
        """All of some columns; None where they are too many."""
        found: list[pyarrow.Table] = []
        for table in chain.from_iterable(split.tables() for split in self.typed(columns)):
            found.append(table)
            if sum(rows.nbytes for rows in found) > SMALL:
                return None
        return pyarrow.concat_tables(found)


def _with_small(text: str, filename: str, inputs: Mapping[str, _Input]) -> tuple[Compiled, dict[str, Any]]:
    """A query, compiled, and its variables: what every task is given of small inputs."""
    schemas = {name: input.schema for name, input in inputs.items()}
    small = {name for name, input in inputs.items() if input.is_small}
    while True:
        query = compiled(text, filename, schemas, small)
        made = {given.name: _made(given, inputs[given.input]) for given in query.small}
        large = {given.input for given in query.small if made[given.name] is None}
        if not large:
            return query, {"SMALL": made} if made else {}
        small -= large  # more in memory than in a file


def _made(given: Small, input: _Input) -> pyarrow.Table | None:
    rows = input.rows(given.columns)
    if rows is None:
        return None
    with running(Task("notebook", 0, {})):
        made = query(given.text, {given.input: rows}, {})
    return made if made.nbytes <= SMALL else None


def shown(plan: Plan, variables: Mapping[str, Any]) -> Compiled | None:
    """The query of a plan, compiled without running anything; None where its inputs' columns are only known by that.

    Args:
        plan: Of a cell with ``--sql``.
        variables: The notebook's.

    Raises:
        ProgramError, PlanError, DataError: As for ``planned``.
    """
    named: dict[str, list[Any]] = {}
    for input in inputs_of(plan.options):
        kind, value = kind_of(input.entry)
        if kind == "run" or (kind == "variable" and is_collection(variables.get(value))):
            return None
        named.setdefault(input.name, []).append(input.entry)
    text = statement(plan.program, sorted(named))
    format = plan.options.get("format")
    found = {name: input_splits(some, 1, variables, format, _UNCUT, typed=True) for name, some in named.items()}
    read = {name: _Input(list(splits), schema_of(name, splits)) for name, splits in found.items()}
    return _with_small(text, plan.program.filename, read)[0]


def told(query: Compiled) -> tuple[str, ...]:
    """What the reader should know of how a query runs."""
    if not query.reasons:
        return ()
    some = "the query" if query.outline.stages[0].gathers and len(query.outline.stages) == 1 else "a part of the query"
    return (f"note: {some} runs in one task, since it has {'; '.join(query.reasons)}",)


def result(contents: Sequence[bytes], schema: pyarrow.Schema, types: Types, form: str | None) -> Any:
    """What a query gives to the notebook, as DuckDB's own client makes it.

    Args:
        contents: The packed tables of the last tasks.
        schema: Of the result.
        types: DuckDB's, of its columns.
        form: ``list`` for dicts; else a DataFrame.
    """
    tables = [table for content in contents if (table := unpack_table(content)).num_columns]
    rows = concat_tables(tables) if tables else schema.empty_table()
    with closing(opened(psutil.virtual_memory().total // 2)) as connection:  # it only hands the table on
        show(connection, "rows", _with_metadata(rows, schema), types)
        found = connection.table("rows")
        return [dict(zip(types, row, strict=True)) for row in found.fetchall()] if form == "list" else found.df()


def _with_metadata(rows: pyarrow.Table, schema: pyarrow.Schema) -> pyarrow.Table:
    """The rows with what Arrow knows of the columns beside their types, by which DuckDB knows a VARIANT."""
    fields = [field.with_metadata(known.metadata) for field, known in zip(rows.schema, schema, strict=True)]
    return pyarrow.table(rows.columns, schema=pyarrow.schema(fields))
