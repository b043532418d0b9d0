"""Schemas: types of the columns of CSV and JSON Lines, guessed once for a whole input."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow
import pyarrow.csv

from paibook.data.arrow_tables import json_table
from paibook.data.csv_files import csv_header
from paibook.data.formats import open_bytes
from paibook.data.lines import END, stored_blocks

PLACES = 16  # in an input that are looked at, spread evenly
SAMPLE = 256 << 10  # bytes looked at in each


def guess_csv(url: str, delimiter: str, start: int = 0) -> pyarrow.Schema:
    """Types of a CSV file's columns by some rows from byte ``start`` on, where a row begins.

    Raises:
        DataError: Its header cannot be read.
        pyarrow.ArrowException: Its rows cannot.
    """
    header = csv_header(url, delimiter)
    parse = pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    read = pyarrow.csv.ReadOptions(block_size=SAMPLE, column_names=header if start else None, use_threads=False)
    if not header:
        return pyarrow.schema([])
    with open_bytes(url) as file:
        file.seek(start)
        return pyarrow.csv.open_csv(file, read, parse).schema


def guess_json(url: str, start: int = 0) -> pyarrow.Schema:
    """Types of JSON Lines' columns by some lines from byte ``start`` on; none where Arrow cannot read them.

    Raises:
        DataError: Bytes that cannot be read.
    """
    for _, block in stored_blocks(url, start, END, SAMPLE):
        found = json_table(block)
        if found is not None:
            return found.schema
        break
    return pyarrow.schema([])


def unified(schemas: Sequence[pyarrow.Schema], as_text: bool) -> pyarrow.Schema:
    """One type for each column: numbers widen, others must agree.

    Args:
        schemas: By some of the rows each.
        as_text: Whether a column that has no such type, or no value, is text; else it is left out.
    """
    names = dict.fromkeys(name for schema in schemas for name in schema.names)
    fields = []
    for name in names:
        type = _common([schema.field(name).type for schema in schemas if name in schema.names])
        if type is None and as_text:
            type = pyarrow.string()
        if type is not None:
            fields.append(pyarrow.field(name, type))
    return pyarrow.schema(fields)


def _common(types: Sequence[pyarrow.DataType]) -> pyarrow.DataType | None:
    schemas = [pyarrow.schema([("", type)]) for type in types]
    try:
        found = pyarrow.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pyarrow.ArrowException:
        return None
    return None if _unknown(found) else found


def _unknown(type: pyarrow.DataType) -> bool:
    """Whether a type is, or holds, that of nulls alone."""
    if pyarrow.types.is_null(type):
        return True
    return any(_unknown(type.field(i).type) for i in range(type.num_fields))


def spread(count: int, places: int = PLACES) -> list[int]:
    """Indices of ``places`` of ``count`` things, the first and the last among them, each once.

    >>> spread(100, 3)
    [0, 50, 99]
    """
    if count <= places:
        return list(range(count))
    return sorted({round(i * (count - 1) / (places - 1)) for i in range(places)})
