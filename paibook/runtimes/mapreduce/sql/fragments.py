"""Fragments: the pieces a query is divided into, run by DuckDB on the tables that a task has.

A compiled query calls ``run``; see ``programs``. Nothing but the tables can be read: no file, no address.
"""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

import duckdb
import pyarrow

from paibook.errors import PaibookError
from paibook.runtimes.mapreduce.batches import Relations
from paibook.runtimes.mapreduce.task import current

Types = Mapping[str, str]  # DuckDB's types, by column

_LEAST = 64 << 20  # bytes without which DuckDB does not get far
_RAW = "_raw_"
_END = r"(?=[\[,)]|$)"  # of a type's name, which may be inside of another's, where a field's name goes on
# Types that come back from Arrow as others, or with other values: of a UNION with a NULL it is forgotten which one.
_LOST = re.compile(rf"\b(BIT|BIGNUM|VARIANT|UHUGEINT|TIME WITH TIME ZONE){_END}|\bUNION\(")
_BIT = re.compile(rf"\bBIT{_END}")  # comes back as bytes, which are cast to other bits
_UNSHOWN = re.compile(rf"\b(BIGNUM|UHUGEINT|TIME WITH TIME ZONE){_END}")
# Not in threading.local: when the process forks, the child clears that of other threads, and DuckDB crashes there.
_idle: list[tuple[Path, duckdb.DuckDBPyConnection]] = []
_lock = threading.Lock()


class QueryError(PaibookError):
    """DuckDB could not run a fragment on a task's rows: says why, as DuckDB does."""


def run(texts: Mapping[str, str], tables: Mapping[str, pyarrow.Table], types: Mapping[str, Types]) -> Relations:
    """Run some queries on the same tables.

    Args:
        texts: A query for each table to be made, by its name.
        tables: Arrow's, by the name that the queries know them by.
        types: Of the columns of tables whose types Arrow may not hold, or that have no row and are not here at all.

    Raises:
        QueryError: A value that cannot be cast, a sum that is too large, memory that does not do, and the like.
    """
    with working() as connection:
        try:
            for name in {**tables, **types}:
                show(connection, name, tables.get(name), types.get(name))
            return Relations({name: connection.sql(text).to_arrow_table() for name, text in texts.items()})
        except duckdb.Error as error:
            raise QueryError(plain_text(error)) from None


def query(text: str, tables: Mapping[str, pyarrow.Table], types: Mapping[str, Types]) -> pyarrow.Table:
    """Run one query; as ``run``."""
    return run({"": text}, tables, types)[""]


@contextmanager
def working() -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB that nobody else uses meanwhile, with the running task's memory; it spills into the run's folder."""
    task = current()
    folder = task.folder or _scratch()
    database = _taken(folder)
    try:
        with closing(database.cursor()) as connection:
            connection.execute(f"SET memory_limit = '{max(_LEAST, task.budget)}B'")
            yield connection
    finally:
        with _lock:
            _idle.append((folder, database))


def _taken(folder: Path) -> duckdb.DuckDBPyConnection:
    """A database that spills into a folder: to open one for each call would take longer than many a fragment."""
    with _lock:
        mine = [entry for entry in _idle if entry[0] == folder]
        _idle[:] = mine[1:]  # others are of runs that have ended
    return mine[0][1] if mine else opened(_LEAST, folder / f"duckdb-{uuid.uuid4().hex[:12]}")


@cache
def _scratch() -> Path:
    """A folder of this process, gone when it ends."""
    folder = Path(tempfile.mkdtemp(prefix="paibook-duckdb-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def opened(memory: int, spills: Path | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB of its own that sees no files, with one thread.

    Args:
        memory: Bytes it may use.
        spills: A folder, made when it is needed.
    """
    settings: dict[str, str | bool | int | float | list[str]] = {
        "threads": 1,
        "enable_external_access": False,
        "python_enable_replacements": False,  # by which a table could be a variable of ours
        "memory_limit": f"{memory}B",
        "temp_directory": "" if spills is None else str(spills),
    }
    return duckdb.connect(":memory:", config=settings)


def quoted(name: str) -> str:
    """A name as SQL writes it, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def plain_text(error: duckdb.Error) -> str:
    """What DuckDB says, without the lines of a text that the reader did not write, and without long lists."""
    text = re.split(r"\n\n|\n\s*LINE \d+:|\n\s*Candidate functions:", str(error))[0].strip()
    if isinstance(error, duckdb.OutOfMemoryException):
        return f"{text}; give the workers more with --memory, or make smaller partitions with --reducers"
    return text


def is_lost(type: str) -> bool:
    """Whether values of a type are not the same after they were in an Arrow table."""
    return _LOST.search(type) is not None


def is_unshown(type: str) -> bool:
    """Whether DuckDB makes no DataFrame of a type's values."""
    return _UNSHOWN.search(type) is not None


def show(connection: duckdb.DuckDBPyConnection, name: str, table: pyarrow.Table | None, types: Types | None) -> None:
    """Make a table known, with its columns' own types.

    Args:
        connection: Knows it from then on.
        name: The table's.
        table: None for one without rows.
        types: Of its columns, where Arrow may not hold them.
    """
    if table is None:
        columns = ", ".join(f"{quoted(column)} {type}" for column, type in (types or {}).items())
        connection.execute(f"CREATE TEMPORARY TABLE {quoted(name)} ({columns})")
        return
    if types is None:
        connection.register(name, table)
        return
    raw = _RAW + name
    connection.register(raw, table)
    # Arrow has no HUGEINT, UUID or JSON, say: they travel as decimals and texts.
    found = described(connection, f"FROM {quoted(raw)}").values()
    columns = ", ".join(
        quoted(column) if type == own or _BIT.search(type) else f"CAST({quoted(column)} AS {type}) AS {quoted(column)}"
        for (column, type), own in zip(types.items(), found, strict=True)
    )
    connection.execute(f"CREATE TEMPORARY VIEW {quoted(name)} AS SELECT {columns} FROM {quoted(raw)}")


def described(connection: duckdb.DuckDBPyConnection, text: str) -> dict[str, str]:
    """The types of a query's columns, by name.

    Raises:
        duckdb.Error: It cannot be bound.
    """
    return {row[0]: row[1] for row in connection.execute(f"DESCRIBE {text}").fetchall()}
