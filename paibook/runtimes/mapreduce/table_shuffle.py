"""The shuffle of tables: rows cut into buckets by key, packed as Arrow streams, and put together again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy
import pyarrow
import pyarrow.compute as compute
import pyarrow.types

from paibook.runtimes.mapreduce.arrow_partition import table_hashes
from paibook.runtimes.mapreduce.mistakes import WrongYield

KEY = "key"
EXACT = pyarrow.decimal256(76, 0)  # of sums beyond 64 bits; nobody else's columns are likely to have it
_FLOAT_DIGITS = 15  # that any float64 keeps
_WIDE = b"paibook.type"  # in a packed column's metadata: the type it had
_NARROWED = 4096  # rows from which narrowing is worth a look at them
_WHOLE = (pyarrow.int64(), pyarrow.int32(), pyarrow.int16(), pyarrow.uint64(), pyarrow.uint32(), pyarrow.uint16())
_NARROW = [(kind, numpy.iinfo(kind.to_pandas_dtype())) for kind in (pyarrow.int8(), pyarrow.int16(), pyarrow.int32())]
ROUTE = "_key"  # the column that relations go by, which were named by the function that made them


def key_columns(table: pyarrow.Table, keys: Sequence[str], where: str) -> list[str]:
    """The names of a table's key columns: those asked for, else ``key``, else the first.

    Args:
        table: What a function of the cell made.
        keys: Those of ``--key``; empty where the line has none.
        where: What the function is called in messages.

    Raises:
        WrongYield: It has no such column, or one that cannot be a key; says what it has.
    """
    names = table.column_names
    found = list(keys) or ([KEY] if KEY in names else names[:1])
    if not found:
        raise WrongYield(f"{where} returned a table without columns; a column of keys is needed")
    for name in found:
        if names.count(name) != 1:
            count = "no column" if name not in names else f"{names.count(name)} columns"
            listed = ", ".join(names)
            raise WrongYield(f"{where} returned a table with {count} named {name!r}; --key names one of: {listed}")
        kind = table.schema.field(name).type
        if pyarrow.types.is_nested(kind):
            raise WrongYield(f"{where} returned {kind} values in the key column {name!r}; keys are texts or numbers")
    return found


def partition_table(table: pyarrow.Table, keys: Sequence[str], buckets: int) -> list[pyarrow.Table | None]:
    """Cut a table into buckets by the stable hashes of its keys; rows keep their order.

    Args:
        table: Any.
        keys: Names of its key columns.
        buckets: How many, at least 1.

    Returns:
        For each bucket its rows, or None where there are none. They share memory.
    """
    if buckets == 1 or not table.num_rows:
        return [table if table.num_rows else None] + [None] * (buckets - 1)
    some = pyarrow.table([_hashable(table.column(key)) for key in keys], names=list(keys))
    return split_table(table, table_hashes(some, keys) % numpy.uint32(buckets), buckets)


def split_table(table: pyarrow.Table, numbers: Any, buckets: int) -> list[pyarrow.Table | None]:
    """Cut a table into buckets by each row's number.

    Args:
        table: Any.
        numbers: The bucket of each row, 0 to ``buckets - 1``.
        buckets: How many.
    """
    # numpy sorts small whole numbers by radix: one pass for each byte.
    narrow = numpy.asarray(numbers).astype(_narrow(buckets))
    order = numpy.argsort(narrow, kind="stable")
    ends = numpy.cumsum(numpy.bincount(narrow, minlength=buckets)).tolist()
    rows = taken_rows(table, order)
    starts = [0, *ends[:-1]]
    return [rows.slice(start, end - start) if end > start else None for start, end in zip(starts, ends, strict=True)]


def taken_rows(table: pyarrow.Table, order: numpy.ndarray[Any, Any]) -> pyarrow.Table:
    """The rows of a table at given places, in one chunk where Arrow's limits allow."""
    indices = pyarrow.array(order)
    columns = [_taken(column, order, indices) for column in table.columns]
    return pyarrow.Table.from_arrays(columns, schema=table.schema)


def pack_table(table: pyarrow.Table) -> pyarrow.Buffer:
    """A table as an Arrow stream, its whole numbers in as few bytes as they need.

    Not compressed: on local disks, LZ4 takes more time than the bytes it saves.
    """
    narrow = pyarrow.table([_narrowed(column) for column in table.columns], names=table.column_names)
    schema = pyarrow.schema(
        [
            field if field.type == wide.type else field.with_metadata({_WIDE: str(wide.type)})
            for field, wide in zip(narrow.schema, table.schema, strict=True)
        ]
    )
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, schema) as writer:
        writer.write_table(narrow)
    return sink.getvalue()


def unpack_table(content: Any) -> pyarrow.Table:
    """The table that ``pack_table`` was given; what was not narrowed lies in ``content`` itself.

    Args:
        content: bytes, an Arrow buffer, or any other buffer.
    """
    with pyarrow.ipc.open_stream(pyarrow.py_buffer(content)) as reader:
        table = reader.read_all()
    columns = []
    for field, column in zip(table.schema, table.columns, strict=True):
        wide = (field.metadata or {}).get(_WIDE)
        columns.append(column if wide is None else column.cast(wide.decode()))
    return pyarrow.table(columns, names=table.column_names)


def _narrowed(column: pyarrow.ChunkedArray) -> pyarrow.ChunkedArray:
    kind = column.type
    if kind not in _WHOLE or len(column) < _NARROWED:
        return column
    found = compute.min_max(column).as_py()
    if found["min"] is None:
        return column
    for narrow, limits in _NARROW:
        if narrow.bit_width >= kind.bit_width:
            break
        if limits.min <= found["min"] and found["max"] <= limits.max:
            return column.cast(narrow, safe=False)
    return column


def concat_tables(tables: Sequence[pyarrow.Table]) -> pyarrow.Table:
    """Tables below each other; columns that differ in type take the wider one, missing ones become null.

    Raises:
        WrongYield: No type holds all values of a column as they are, so that equal keys could meet: text and numbers,
            decimals and floats, floats and whole numbers beyond 53 bits. Names the column and its types.
    """
    if len(tables) < 2:
        return tables[0] if tables else pyarrow.table({})
    first = tables[0].schema
    if all(table.schema.equals(first) for table in tables):
        return pyarrow.concat_tables(tables)
    filled = [table for table in tables if table.num_rows] or list(tables[:1])
    filled = list(map(_without_guesses, filled))
    _refuse_inexact(filled)
    try:
        return pyarrow.concat_tables(filled, promote_options="permissive")
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
        raise WrongYield(_misfit(filled, error)) from error


def _kinds(tables: Sequence[pyarrow.Table]) -> dict[str, list[Any]]:
    """The different types of each column that has several."""
    found: dict[str, dict[Any, None]] = {}
    for field in chain.from_iterable(table.schema for table in tables):
        found.setdefault(field.name, {})[field.type] = None
    return {name: list(kinds) for name, kinds in found.items() if len(kinds) > 1}


def _refuse_inexact(tables: Sequence[pyarrow.Table]) -> None:
    """Refuse types that Arrow brings together by changing values: 0.1 is no float, and a text is not its bytes."""
    for name, kinds in _kinds(tables).items():
        leaves = [leaf for kind in kinds for leaf in _leaves(kind)]
        if any(map(_is_more_than_a_float, leaves)) and any(map(pyarrow.types.is_floating, leaves)):
            raise WrongYield(_unlike(name, kinds))
        if any(map(_is_text, leaves)) and any(map(_is_bytes, leaves)):
            raise WrongYield(_unlike(name, kinds))


def _leaves(kind: Any) -> Iterator[Any]:
    """A type, or those in it: lists and structs of them."""
    if not pyarrow.types.is_nested(kind) or not kind.num_fields:
        yield kind
        return
    for i in range(kind.num_fields):
        yield from _leaves(kind.field(i).type)


def _is_more_than_a_float(kind: Any) -> bool:
    """Decimals that no float holds; sums of whole numbers apart, to which floats are added as Python does."""
    return bool(pyarrow.types.is_decimal(kind)) and kind != EXACT and (kind.scale > 0 or kind.precision > _FLOAT_DIGITS)


def _is_text(kind: Any) -> bool:
    return bool(pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind))


def _is_bytes(kind: Any) -> bool:
    found = pyarrow.types
    return bool(found.is_binary(kind) or found.is_large_binary(kind) or found.is_fixed_size_binary(kind))


def _misfit(tables: Sequence[pyarrow.Table], error: Exception) -> str:
    """Which column does not fit, seen by trying each."""
    for name, kinds in _kinds(tables).items():
        some = [table.select([name]) for table in tables if name in table.column_names]
        try:
            pyarrow.concat_tables(some, promote_options="permissive")
        except pyarrow.ArrowException as reason:
            return _unlike(name, kinds, f" ({reason})")
    return f"tables do not fit together: {error}"


def _unlike(name: str, kinds: Sequence[Any], reason: str = "") -> str:
    listed = " in some tables and ".join(map(str, kinds))
    together = f"the column {name!r} is {listed} in others, which make no column together{reason}"
    return f"{together}; give it one type, as with astype or cast"


def _without_guesses(table: pyarrow.Table) -> pyarrow.Table:
    """A column of nulls alone has whatever type somebody guessed: let it take that of the others."""
    columns = [
        pyarrow.chunked_array([pyarrow.nulls(len(column))]) if column.null_count == len(column) else plain(column)
        for column in table.columns
    ]
    return pyarrow.table(columns, names=table.column_names)


def plain(column: Any) -> Any:
    """A column without a dictionary or a view: not every function of Arrow takes these."""
    kind = column.type
    if pyarrow.types.is_dictionary(kind):
        return column.cast(kind.value_type)
    return column.cast(pyarrow.large_string()) if pyarrow.types.is_string_view(kind) else column


def _hashable(column: pyarrow.ChunkedArray) -> pyarrow.ChunkedArray:
    return column.cast(pyarrow.int8()) if pyarrow.types.is_null(column.type) else column


def _taken(column: pyarrow.ChunkedArray, order: numpy.ndarray[Any, Any], indices: pyarrow.Array) -> Any:
    kind = column.type
    if column.null_count == 0 and (pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind)):
        # numpy gathers numbers in half the time.
        return pyarrow.array(column.to_numpy()[order])
    if column.num_chunks > 1:
        column = column.combine_chunks()  # chunk by chunk, taking looks each row's chunk up
    return column.take(indices)


def _narrow(buckets: int) -> type[numpy.unsignedinteger[Any]]:
    if buckets <= 1 << 8:
        return numpy.uint8
    return numpy.uint16 if buckets <= 1 << 16 else numpy.uint32
