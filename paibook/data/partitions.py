"""Partitions by column: hive-style folders ``year=2024/month=1``, whose columns stand in the path alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

import numpy
import pyarrow

from paibook.data.frames import array
from paibook.errors import DataError

NULL = "__HIVE_DEFAULT_PARTITION__"  # what Hive, Spark and pyarrow write for a null


def split_table(
    table: pyarrow.Table, by: Sequence[str], place: str
) -> tuple[pyarrow.Schema, Iterator[tuple[str, pyarrow.Table]]]:
    """A table cut by the values of columns.

    Returns:
        The types of the partition columns, and for each folder the rows that belong there, in their order, without the
        partition columns.

    Raises:
        DataError: A column that is not there or cannot stand in a path, or no column would be left.
    """
    _check(by, table.column_names, place)
    if len(set(table.column_names)) == len(set(by)):
        raise DataError(f"{place}: every column is a partition column ({', '.join(by)}); leave one for the files")
    schema = pyarrow.schema([table.schema.field(name) for name in by])
    folders, order, edges = _groups([table[name] for name in by], by, place)
    ordered = table.drop_columns(list(by)).take(order)
    cuts = zip(folders, edges, edges[1:], strict=False)
    return schema, ((folder, ordered.slice(start, stop - start)) for folder, start, stop in cuts)


def split_records(
    records: Sequence[Any], by: Sequence[str], place: str
) -> tuple[pyarrow.Schema, Iterator[tuple[str, list[dict[Any, Any]]]]]:
    """As ``split_table``, of dicts; where one lacks the column, it is null."""
    other = next((record for record in records if not isinstance(record, dict)), None)
    if other is not None:
        raise DataError(f"{place}: only dicts can be partitioned by {', '.join(by)}; got {other!r:.80}")
    _check(by, dict.fromkeys(chain.from_iterable(records)), place)
    arrays = [array(name, [record.get(name) for record in records], place) for name in by]
    folders, order, edges = _groups(arrays, by, place)
    left_out = frozenset(by)
    bare = [{name: value for name, value in record.items() if name not in left_out} for record in records]
    schema = pyarrow.schema([(name, values.type) for name, values in zip(by, arrays, strict=True)])
    cuts = zip(folders, edges, edges[1:], strict=False)
    return schema, ((folder, [bare[i] for i in order[start:stop]]) for folder, start, stop in cuts)


def values_of(file: PurePosixPath) -> dict[str, str | None]:
    """What the folders of a path, relative to its dataset, say: column to text, None for null.

    >>> values_of(PurePosixPath("year=2024/city=S%C3%A3o/part-00000.parquet"))
    {'year': '2024', 'city': 'São'}
    """
    pairs = (folder.partition("=") for folder in file.parts[:-1])
    return {unquote(name): None if value == NULL else unquote(value) for name, equals, value in pairs if equals}


def types_of(values: Sequence[dict[str, str | None]]) -> pyarrow.Schema:
    """Guessed types of partition columns where none are known: whole numbers, else text, as pyarrow guesses."""
    fields = []
    for name in dict.fromkeys(name for value in values for name in value):
        texts = pyarrow.array([value.get(name) for value in values], pyarrow.string())
        try:
            texts.cast(pyarrow.int64())
            fields.append((name, pyarrow.int64()))
        except pyarrow.ArrowInvalid:
            fields.append((name, pyarrow.string()))
    return pyarrow.schema(fields)


def with_values(table: pyarrow.Table, values: dict[str, str | None], schema: pyarrow.Schema) -> pyarrow.Table:
    """A part's table with the columns that its path holds, in their types."""
    for field in schema:
        scalar = pyarrow.array([values.get(field.name)], pyarrow.string()).cast(field.type)[0]
        table = table.append_column(field, pyarrow.repeat(scalar, table.num_rows))
    return table


def _check(by: Sequence[str], names: Any, place: str) -> None:
    missing = [name for name in by if name not in names]
    if missing:
        found = ", ".join(map(str, names))
        raise DataError(f"{place}: there is no column {missing[0]!r} to partition by; the records have: {found}")


def _groups(arrays: Sequence[Any], by: Sequence[str], place: str) -> tuple[list[str], Any, list[int]]:
    """Folders, the order of rows that brings each folder's together, and where each one's begin and the last ends."""
    codes = numpy.zeros(len(arrays[0]), dtype=numpy.int64)
    folders = [""]
    for name, values in zip(by, arrays, strict=True):
        texts = _texts(values, name, place)
        found, inverse = numpy.unique(codes * len(texts.dictionary) + texts.indices.to_numpy(), return_inverse=True)
        names = [_folder(name, text) for text in texts.dictionary.to_pylist()]
        folders = [f"{folders[code // len(names)]}{names[code % len(names)]}/" for code in found.tolist()]
        codes = inverse
    order = numpy.argsort(codes, kind="stable")
    edges = [0, *numpy.cumsum(numpy.bincount(codes, minlength=len(folders))).tolist()]
    return [folder.removesuffix("/") for folder in folders], order, edges


def _texts(values: Any, name: str, place: str) -> pyarrow.DictionaryArray:
    try:
        texts = values.cast(pyarrow.string())
    except pyarrow.ArrowException as error:
        raise DataError(f"{place}: cannot partition by the column {name!r} of {values.type}: {error}") from error
    texts = texts.combine_chunks() if isinstance(texts, pyarrow.ChunkedArray) else texts
    return texts.dictionary_encode(null_encoding="encode")


def _folder(name: str, text: str | None) -> str:
    return f"{quote(name, safe='')}={NULL if text is None else quote(text, safe='')}"
