"""The statement: a cell's text as one SELECT over its named inputs, or an error that says what else it is."""

from __future__ import annotations

import difflib
from collections.abc import Collection

import duckdb
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from paibook.errors import PlanError, ProgramError
from paibook.program import Program
from paibook.runtimes.mapreduce.outline import MAGIC
from paibook.runtimes.mapreduce.sql.catalog import refused

DIALECT = "duckdb"


def statement(program: Program, inputs: Collection[str]) -> str:
    """The one query of a cell; its lines are the cell's.

    Args:
        program: The cell.
        inputs: Names of the inputs.

    Raises:
        PlanError: An input has no name.
        ProgramError: It is no SQL, no SELECT, or more than one statement; or it reads what is no input.
    """
    for name in inputs:
        if not name.isidentifier():
            raise PlanError(f"--sql needs a name for each input, a word such as users; got {name!r}")
    try:
        found = duckdb.extract_statements(program.source)
    except duckdb.Error as error:
        raise refused(error, program.source, program.filename) from None
    where = f"{MAGIC} --sql: {program.filename}"
    if len(found) != 1:
        raise ProgramError(f"{where} has {len(found)} statements; one SELECT is expected")
    kind = found[0].type.name
    text = program.source.rstrip().rstrip(";")
    if kind == "MULTI":
        raise ProgramError(f"{where} has a PIVOT whose columns depend on the data; name them: ON column IN (...)")
    tree = parsed(text) if kind == "SELECT" else None
    if tree is not None and not isinstance(tree, (exp.Query, exp.Pivot, exp.Values)):
        kind = tree.key.upper()
    if kind != "SELECT":
        raise ProgramError(f"{where} is a statement of the kind {kind}; one SELECT over its inputs is expected")
    if tree is not None:
        _check_tables(tree, inputs, where)
    return text


def parsed(text: str) -> exp.Expr | None:
    """The query's syntax tree; None where DuckDB understands more than sqlglot does."""
    try:
        return sqlglot.parse_one(text, dialect=DIALECT)
    except (SqlglotError, RecursionError):
        return None


def _check_tables(tree: exp.Expr, inputs: Collection[str], where: str) -> None:
    known = {name.lower() for name in inputs}
    defined = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
    for table in tree.find_all(exp.Table):
        name = table.name
        if not isinstance(table.this, exp.Identifier) or name.lower() in known | defined:
            continue
        near = difflib.get_close_matches(name, inputs, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; -i {_example(name)} would make it one"
        listed = ", ".join(inputs)
        raise ProgramError(f"{where} reads {name!r}, which is none of its inputs ({listed}){hint}")


def _example(name: str) -> str:
    stem = name.rpartition("/")[2].partition(".")[0]
    return f"{stem if stem.isidentifier() else 'NAME'}={name if not name.isidentifier() else 'PATH'}"
