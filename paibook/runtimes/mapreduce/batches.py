"""Batches: calling the cell's functions that take whole tables, in Arrow's, pandas' or Polars' words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from types import ModuleType
from typing import Any

import pandas
import pyarrow

from paibook.errors import ProgramError
from paibook.runtimes.mapreduce.aggregates import with_decimals
from paibook.runtimes.mapreduce.forms import Form
from paibook.runtimes.mapreduce.mistakes import WrongYield
from paibook.runtimes.mapreduce.table_shuffle import concat_tables

WANTED = "an Arrow table, a pandas DataFrame, a Polars DataFrame, or an iterable of them"


class Relations(dict[str, pyarrow.Table]):
    """Several tables that a function makes at once, by the names that later functions know them by."""


def call(
    function: Callable[..., Any], form: Form, table: pyarrow.Table, where: str, *others: pyarrow.Table
) -> pyarrow.Table:
    """Call a function of the cell with tables and take back what it makes.

    Args:
        function: The cell's.
        form: What it takes, from ``form_of``.
        table: Its first argument.
        where: What the function is called in messages, such as ``"map"``.
        others: More arguments, where it takes one table of each input.

    Returns:
        What it returned or yielded as one table, without pandas' metadata. pandas' index is dropped unless it is named.

    Raises:
        WrongYield: It returned something else than tables, or tables that do not fit together; says what to do.
        ProgramError: It takes Polars frames, and Polars is not installed.
        Exception: Whatever the function itself raises, untouched.
    """
    return taken(function(*(given(form, some) for some in (table, *others))), where)


def named(made: Any, where: str) -> Mapping[str, pyarrow.Table]:
    """What a function of the cell returned, by the relation; ``""`` is what it returned without a name.

    Raises:
        WrongYield: As ``call``.
    """
    return made if isinstance(made, Relations) else {"": taken(made, where)}


def given(form: Form, table: pyarrow.Table) -> Any:
    """A table in the form a function takes.

    Raises:
        ProgramError: Polars is not installed.
    """
    table = with_decimals(table)
    if form == "pandas":
        # What pandas wrote may name columns to hide in an index: here all are columns.
        return table.to_pandas(ignore_metadata=True)
    if form == "polars":
        return _polars().from_arrow(table)
    return table


def taken(made: Any, where: str) -> pyarrow.Table:
    """What a function of the cell returned as one table; see ``call``."""
    single = _table(made, where)
    if single is not None:
        return single
    if made is None or isinstance(made, (str, bytes, dict)) or not hasattr(made, "__iter__"):
        raise WrongYield(_wrong(made, where))
    tables = list(_tables(made, where))
    try:
        return concat_tables(tables)
    except (pyarrow.ArrowException, TypeError) as error:
        schemas = " and ".join(dict.fromkeys(_columns(table) for table in tables))
        raise WrongYield(f"{where} yielded tables that do not fit together ({error}): {schemas}") from error


def _tables(made: Any, where: str) -> Iterator[pyarrow.Table]:
    for piece in made:
        table = _table(piece, where)
        if table is None:
            raise WrongYield(_wrong(piece, where, "yielded"))
        yield table


def _table(made: Any, where: str) -> pyarrow.Table | None:
    """A table of a known library as an Arrow table; None for anything else."""
    if isinstance(made, pyarrow.Table):
        return made.replace_schema_metadata(None)
    if isinstance(made, pyarrow.RecordBatch):
        return pyarrow.Table.from_batches([made]).replace_schema_metadata(None)
    if isinstance(made, pandas.DataFrame):
        return _of_pandas(made, where)
    if type(made).__module__.startswith("polars."):
        return _of_polars(made)
    return None


def _of_pandas(frame: pandas.DataFrame, where: str) -> pyarrow.Table:
    try:
        if any(name is not None for name in frame.index.names):
            frame = frame.reset_index()
        table = pyarrow.Table.from_pandas(frame, preserve_index=False)
    except (pyarrow.ArrowException, TypeError, ValueError) as error:
        reason = "; ".join(map(str, error.args))
        raise WrongYield(
            f"{where} returned a pandas DataFrame that cannot travel as a table: {reason}; "
            "give each column one type and a name of its own"
        ) from error
    return table.replace_schema_metadata(None)


def _of_polars(made: Any) -> pyarrow.Table | None:
    polars = _polars()
    if isinstance(made, polars.LazyFrame):
        made = made.collect()
    if not isinstance(made, polars.DataFrame):
        return None
    # Arrow's group-by does not know the newest types, such as views of texts.
    return made.to_arrow(compat_level=polars.CompatLevel.oldest())


def _polars() -> ModuleType:
    try:
        import polars
    except ImportError as error:
        raise ProgramError(
            "the cell's function takes a Polars DataFrame; install Polars with `pip install 'paibook[polars]'`"
        ) from error
    return polars


def _wrong(made: Any, where: str, verb: str = "returned") -> str:
    text = repr(made)
    shown = "None" if made is None else f"{text if len(text) <= 80 else text[:77] + '...'} ({type(made).__name__})"
    advice = "did you forget to return the table?" if made is None else "make a table of it, as with pa.table({...})"
    if isinstance(made, pandas.Series):
        advice = "write .reset_index() or .to_frame() behind it"
    return f"{where} {verb} {shown} where {WANTED} is needed; {advice}"


def _columns(table: pyarrow.Table) -> str:
    shown = [f"{field.name} {field.type}" for field in table.schema]
    return "(" + ", ".join(chain(shown[:8], ["..."] if len(shown) > 8 else [])) + ")"
