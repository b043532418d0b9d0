"""Pairs: tables as (key, value) pairs, and pairs as tables, where one function takes batches and the next does not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow
import pyarrow.types

from paibook.runtimes.mapreduce.mistakes import WrongYield
from paibook.runtimes.mapreduce.table_shuffle import EXACT, KEY

VALUE = "value"
_NUMBERS = {int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string(), bool: pyarrow.bool_()}


def pairs_of(table: pyarrow.Table, keys: Sequence[str]) -> Iterator[tuple[Any, Any]]:
    """The rows of a table as (key, value) pairs; see ``lists_of``."""
    return zip(*lists_of(table, keys), strict=True)


def lists_of(table: pyarrow.Table, keys: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """The rows of a table as a list of keys and one of values.

    A key is the key column's value, or the tuple of several's; a value is the other column's, or the tuple of several's
    in their order, or None where there is no other. Sums beyond 64 bits, which lie in decimals, become ints.
    """
    others = [name for name in table.column_names if name not in keys]
    return _rows(table, keys), _rows(table, others)


def dicts_of(table: pyarrow.Table) -> list[dict[str, Any]]:
    """The rows of a table as dicts, with the values of ``lists_of``."""
    records: list[dict[str, Any]] = table.to_pylist()
    for name in [field.name for field in table.schema if field.type == EXACT]:
        for record, value in zip(records, _values(table.column(name)), strict=True):
            record[name] = value
    return records


def table_of(keys: Sequence[Any], values: Sequence[Any], names: Sequence[str] = ()) -> pyarrow.Table:
    """Pairs as a table: columns of keys, then those of values.

    Args:
        keys: All plain, or all tuples of one length, whose items become columns of their own.
        values: As long; all plain, in a column ``value``, or all dicts, whose entries become columns.
        names: Of the key columns; ``key``, or ``key0``, ``key1``, ... for tuples, where empty.

    Raises:
        WrongYield: Values of types that make no column together, or of which ``names`` names more or fewer.
    """
    columns = _key_columns(keys, names)
    if values and all(isinstance(value, dict) for value in values):
        for name in dict.fromkeys(name for value in values for name in value):
            if name in columns:
                raise WrongYield(f"a value has an entry {name!r}, which is the name of a key column too; rename one")
            columns[str(name)] = _column(str(name), [value.get(name) for value in values])
    else:
        columns[VALUE if VALUE not in columns else "value_"] = _column(VALUE, values)
    return pyarrow.table(columns)


def columns_of(keys: Sequence[Any], values: Sequence[Any], names: Sequence[str] = ()) -> pyarrow.Table | None:
    """Pairs as a table where that is fast and loses nothing, else None.

    Keys must all be int, all str, or tuples of one length made of these; values all int, all float or all bool. Floats
    are no keys here, since 1.0 of one batch and 1 of another are one key; ints beyond 64 bits and broken text are left
    to Python.
    """
    if not keys:
        return None
    try:
        value = _exact(values, (int, float, bool))
        parts = _exact_keys(keys)
    except (OverflowError, UnicodeEncodeError, pyarrow.ArrowException):
        return None
    if value is None or parts is None:
        return None
    labels = _labels(names, len(parts), isinstance(keys[0], tuple))
    return pyarrow.table(dict(zip([*labels, VALUE], [*parts, value], strict=True)))


def _exact_keys(keys: Sequence[Any]) -> list[Any] | None:
    if type(keys[0]) is not tuple:
        column = _exact(keys, (int, str))
        return None if column is None else [column]
    if set(map(type, keys)) != {tuple} or len(set(map(len, keys))) != 1 or len(keys[0]) < 2:
        return None
    columns = [_exact(column, (int, str)) for column in zip(*keys, strict=True)]
    return None if any(column is None for column in columns) else columns


def _exact(values: Sequence[Any], kinds: tuple[type, ...]) -> Any:
    found = set(map(type, values))
    kind = found.pop() if len(found) == 1 else None
    return pyarrow.array(values, _NUMBERS[kind]) if kind in kinds and kind is not None else None


def _key_columns(keys: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    are_tuples = bool(keys) and all(type(key) is tuple for key in keys)
    widths = set(map(len, keys)) if are_tuples else {1}
    if len(widths) > 1 or 0 in widths:
        raise WrongYield(f"keys of different lengths ({sorted(widths)}) make no columns; yield tuples of one length")
    width = widths.pop()
    labels = _labels(names, width, are_tuples)
    parts: Sequence[Sequence[Any]] = list(zip(*keys, strict=True)) if are_tuples else [keys]
    return {name: _column(name, part) for name, part in zip(labels, parts, strict=True)}


def _labels(names: Sequence[str], width: int, are_tuples: bool) -> list[str]:
    if names and len(names) != width:
        raise WrongYield(f"--key names {len(names)} columns ({', '.join(names)}); keys of {width} parts were yielded")
    return list(names) or ([f"{KEY}{number}" for number in range(width)] if are_tuples else [KEY])


def _column(name: str, values: Sequence[Any]) -> Any:
    try:
        return pyarrow.array(values, from_pandas=False)
    except (pyarrow.ArrowException, OverflowError, UnicodeEncodeError, TypeError) as error:
        kinds = ", ".join(sorted({type(value).__name__ for value in values}))
        raise WrongYield(
            f"the values of the column {name!r} (of types {kinds}) make no column of a table: {error}; "
            "a reduce that takes tables needs values of one type"
        ) from error


def _rows(table: pyarrow.Table, names: Sequence[str]) -> list[Any]:
    if not names:
        return [None] * table.num_rows
    columns = [_values(table.column(name)) for name in names]
    return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))


def _values(column: pyarrow.ChunkedArray) -> list[Any]:
    kind = column.type
    if column.null_count == 0 and (pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind)):
        values: list[Any] = column.to_numpy().tolist()  # several times faster than Arrow's own
        return values
    values = column.to_pylist()
    if kind == EXACT:
        return [None if value is None else int(value) for value in values]
    return values
