"""Inputs of a query: what columns they have, and splits that give them in the same types everywhere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow
import pyarrow.parquet

from paibook.clusters.contract import Tasks
from paibook.data.batch import Batch
from paibook.data.formats import open_bytes
from paibook.data.frames import common_schema, in_schema
from paibook.data.pieces import READ_ERRORS, Piece
from paibook.data.variables import PendingSplit, SavedSplit, VariableSplit
from paibook.errors import DataError

_PRUNED = ("parquet", "csv", "tsv")  # formats of which columns are worth leaving out


@dataclass(frozen=True, slots=True)
class TypedSplit:
    """A split as tables of one schema, at least one; its other columns are not read.

    Attributes:
        split: The split; None for an input without any.
        schema: Of the columns that are read.
        prunes: Whether the others can be left out when it is read.
    """

    split: Any
    schema: pyarrow.Schema
    prunes: bool = False

    @property
    def weight(self) -> int:
        """The split's."""
        return getattr(self.split, "weight", 0)

    def batches(self) -> Iterator[Batch]:
        """The records, whole."""
        yield from self.split.batches() if self.split is not None else ()

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pyarrow.Table]:
        """The tables.

        Raises:
            DataError: A value that is not of its column's type.
        """
        empty = True
        if self.split is not None:
            for table in self.split.tables(self.schema.names if self.prunes else None):
                empty = False
                yield self._typed(table)
        if empty:
            yield self.schema.empty_table()

    @property
    def pending(self) -> Any:
        """What is pending of a ``PendingSplit``, else None."""
        return getattr(self.split, "pending", None)

    def with_value(self, value: Any) -> TypedSplit:
        """As ``PendingSplit.with_value``."""
        return replace(self, split=self.split.with_value(value))

    def _typed(self, table: pyarrow.Table) -> pyarrow.Table:
        if table.schema.equals(self.schema):
            return table
        try:
            return in_schema(table, self.schema)
        except (pyarrow.ArrowException, ValueError) as error:
            raise DataError(
                f"a value does not fit the columns' types ({', '.join(map(_shown, self.schema))}), which were taken "
                f"from all of the input, or some of its rows: {error}"
            ) from error


def prunes(splits: Sequence[Any], columns: Sequence[str]) -> bool:
    """Whether some columns alone can be read of an input: its format knows columns, and each file has these."""
    pieces = [piece for split in splits for piece in _pieces(split)]
    if not pieces or not {piece.format for piece in pieces} <= set(_PRUNED):
        return False
    schemas = [schema for piece in pieces for schema in _schemas_of_piece(piece)]
    return all(set(columns) <= set(schema.names) for schema in schemas)


def stored_bytes(splits: Sequence[Any]) -> float:
    """The bytes that an input takes as it is stored; infinite where they are not known before it is read."""
    files = {piece.url: piece.fingerprint for split in splits for piece in _pieces(split)}
    sizes = [math.inf if found is None else found.size for found in files.values()]
    return sum(sizes) + sum(_bytes_of_items(split) for split in splits if not _pieces(split))


def _bytes_of_items(split: Any) -> float:
    if isinstance(split, VariableSplit):
        return len(split.content)
    if isinstance(split, SavedSplit):
        return split.path.stat().st_size
    return sum(map(_bytes_of_items, getattr(split, "parts", ()))) or math.inf  # of a sample


def schema_of(name: str, splits: Sequence[Any], tasks: Tasks | None = None) -> pyarrow.Schema:
    """The columns of an input: those that any of its files or items has, in types that hold all.

    Args:
        name: The input.
        splits: Its splits; of CSV and JSON Lines typed ones.
        tasks: The cluster's, for what is computed there.

    Raises:
        DataError: No columns, or one that is text here and a number there.
    """
    found = [schema for split in splits for schema in _schemas(split, tasks)]
    schema = common_schema(list(dict.fromkeys(found)), f"the input {name!r}") if found else pyarrow.schema([])
    if not len(schema):
        raise DataError(f"the input {name!r} has no columns that a query could read: it is empty")
    known: dict[str, str] = {}
    for column in schema.names:
        other = known.setdefault(column.lower(), column)
        if other != column:
            raise DataError(f"the input {name!r} has columns {other!r} and {column!r}, which SQL does not tell apart")
    return _of_plain(schema)


def _schemas(split: Any, tasks: Tasks | None) -> Iterator[pyarrow.Schema]:
    if hasattr(split, "parts"):  # a sample
        for part in split.parts:
            yield from _schemas(part, tasks)
        return
    pieces = _pieces(split)
    if pieces:
        for piece in pieces:
            yield from _schemas_of_piece(piece)
    elif isinstance(split, PendingSplit):
        if tasks is not None:
            yield tasks.submit(_schema_of_value, split, split.pending, label="columns").result()
    else:
        yield _of_plain(split.schema())


def _schema_of_value(split: PendingSplit, value: Any) -> pyarrow.Schema:
    """The columns of a partition, where it lies."""
    tables = split.with_value(value).tables()
    return _of_plain(next((table.schema for table in tables), pyarrow.schema([])))


def _schemas_of_piece(piece: Piece) -> Iterator[pyarrow.Schema]:
    if piece.format == "parquet":
        if not piece.start:
            yield _of_plain(_with_folders(_parquet_schema(piece.url), piece))
        return
    if piece.schema is not None:
        yield _of_plain(_with_folders(piece.schema, piece))
        if piece.format in _PRUNED:
            return
    if not piece.start:
        # What kind of columns a format has is seen from its first rows.
        yield _of_plain(next((table.schema for table in piece.tables()), pyarrow.schema([])))


def _parquet_schema(url: str) -> pyarrow.Schema:
    try:
        with open_bytes(url) as file:
            return pyarrow.parquet.read_schema(file)
    except READ_ERRORS as error:
        raise DataError(f"cannot read {url} as parquet: {error}") from error


def _with_folders(schema: pyarrow.Schema, piece: Piece) -> pyarrow.Schema:
    if piece.folders is None:
        return schema
    own = [field for field in schema if field.name not in piece.folders.schema.names]
    return pyarrow.schema([*own, *piece.folders.schema])


def _pieces(split: Any) -> list[Piece]:
    if isinstance(split, Piece):
        return [split]
    if hasattr(split, "parts"):
        return [piece for part in split.parts for piece in _pieces(part)]
    return list(getattr(split, "pieces", ()))


def _of_plain(schema: pyarrow.Schema) -> pyarrow.Schema:
    return pyarrow.schema([pyarrow.field(field.name, _plain(field.type)) for field in schema])


def _plain(type: pyarrow.DataType) -> pyarrow.DataType:
    """A type without a dictionary, which would be another one in each part."""
    return type.value_type if pyarrow.types.is_dictionary(type) else type


def _shown(field: pyarrow.Field) -> str:
    return f"{field.name} {field.type}"
