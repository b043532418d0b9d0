"""Frames: records as named columns, the same way for a DataFrame, Parquet and CSV.

Dicts become rows of their keys, named tuples and dataclasses rows of their fields, pairs the columns ``key`` and
``value``, other tuples ``0``, ``1``, ...; anything else stands in the one column ``value``.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import pyarrow

from paibook.errors import DataError


def columns(records: Sequence[Any]) -> dict[str, list[Any]]:
    """Records as columns of equal length; None where a dict lacks a key."""
    kinds = set(map(type, records))
    if len(kinds) == 1:
        return _columns_of(kinds.pop(), records)
    if all(issubclass(kind, dict) for kind in kinds):
        return _columns_of(dict, records)
    return {"value": list(records)} if records else {}


def _columns_of(kind: type, records: Sequence[Any]) -> dict[str, list[Any]]:
    if issubclass(kind, dict):
        return _columns_of_dicts(records)
    if dataclasses.is_dataclass(kind):
        return {field.name: [getattr(r, field.name) for r in records] for field in dataclasses.fields(kind)}
    if issubclass(kind, tuple) and len(set(map(len, records))) == 1:
        width = len(records[0])
        named = ["key", "value"] if width == 2 else [str(i) for i in range(width)]
        names = getattr(kind, "_fields", named)
        # Column by column: zip(*records) would hold an iterator for every record.
        return {name: list(map(itemgetter(i), records)) for i, name in enumerate(names)}
    return {"value": list(records)}


def _columns_of_dicts(records: Sequence[dict[Any, Any]]) -> dict[str, list[Any]]:
    names = list(records[0]) if records else []
    answers_all = any(hasattr(kind, "__missing__") for kind in set(map(type, records)))
    if set(map(len, records)) == {len(names)} and not answers_all:
        # As many keys as the first has: the same ones, unless one of the first's is missing.
        with contextlib.suppress(KeyError):
            return {str(name): list(map(itemgetter(name), records)) for name in names}
    names = list(dict.fromkeys(chain.from_iterable(records)))
    return {str(name): [record.get(name) for record in records] for name in names}


def frame(records: Sequence[Any]) -> Any:
    """Records as a pandas DataFrame."""
    import pandas

    return pandas.DataFrame(columns(records))


def table(records: Sequence[Any], place: str = "the output") -> pyarrow.Table:
    """Records as an Arrow table.

    Raises:
        DataError: A column whose values have no common Arrow type; names it and the types.
    """
    arrays = {name: array(name, values, place) for name, values in columns(records).items()}
    return pyarrow.table(arrays)


def array(name: str, values: list[Any], place: str = "the output") -> pyarrow.Array:
    """A column's values as an Arrow array.

    Raises:
        DataError: They have no common Arrow type; names the column and the types.
    """
    try:
        return pyarrow.array(values, from_pandas=False)
    except (pyarrow.ArrowException, TypeError, OverflowError, ValueError) as error:
        found = ", ".join(sorted({type(v).__name__ for v in values if v is not None}))
        raise DataError(
            f"{place}: the column {name!r} has no common type (it holds {found}): {error}; "
            "yield values of one type in it"
        ) from error


def concatenated(tables: Sequence[pyarrow.Table], place: str = "the output") -> pyarrow.Table:
    """Tables one below the other, in the schema that holds them all."""
    if len(tables) == 1:
        return tables[0]
    schema = common_schema([table.schema for table in tables], place)
    return pyarrow.concat_tables([in_schema(table, schema) for table in tables])


def common_schema(schemas: Sequence[pyarrow.Schema], place: str = "the output") -> pyarrow.Schema:
    """The schema that every given one can be cast to: numbers widen, missing columns are null.

    Raises:
        DataError: A column is text in one and a number in another, say.
    """
    try:
        return pyarrow.unify_schemas(list(schemas), promote_options="permissive")
    except (pyarrow.ArrowException, ValueError) as error:
        raise DataError(
            f"{place}: records do not fit into one table: {error}; yield values of one type per column"
        ) from error


def in_schema(table: pyarrow.Table, schema: pyarrow.Schema) -> pyarrow.Table:
    """A table cast to a schema that holds it."""
    arrays = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pyarrow.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pyarrow.table(arrays, schema=schema)
