"""Partitions of tables: hashes of Arrow columns, the same as those of the Python values in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast
from zlib import crc32

import numpy

from paibook.runtimes.mapreduce.hashing import DAY, stable_hash
from paibook.runtimes.mapreduce.partition import Hashes, combined_hashes, float_hashes, hashes_of, integer_hashes
from paibook.runtimes.mapreduce.sampling import SAMPLE, is_sample_repetitive

if TYPE_CHECKING:
    import pyarrow

_TO_MICROSECONDS = {"s": 1_000_000, "ms": 1000, "us": 1}


def table_hashes(table: pyarrow.Table, keys: Sequence[str]) -> Hashes:
    """``stable_hash`` of each row's key.

    Args:
        table: Any.
        keys: Names of its key columns: the value of one, or the tuple of several, is the key.

    Raises:
        KeyError: The table lacks such a column.
        TypeError: A column of lists or structs, which are no keys.
    """
    columns = [column_hashes(table.column(key)) for key in keys]
    return columns[0] if len(columns) == 1 else combined_hashes(columns)


def column_hashes(array: pyarrow.ChunkedArray | pyarrow.Array) -> Hashes:
    """``stable_hash`` of each value of a column as Python has it; a null is None.

    Raises:
        TypeError: A column of lists or structs, which are no keys.
    """
    chunks = array.chunks if hasattr(array, "chunks") else [array]
    made = [_hashes(chunk) for chunk in chunks]
    if len(made) == 1:
        return made[0]
    return numpy.concatenate(made) if made else numpy.empty(0, numpy.uint32)


def _hashes(array: Any) -> Hashes:
    import pyarrow

    if pyarrow.types.is_nested(array.type):
        raise TypeError(f"a column of {array.type} cannot be a key: lists and structs have no hash")
    if pyarrow.types.is_dictionary(array.type):
        return _of_dictionary(array)
    if pyarrow.types.is_null(array.type):
        return numpy.full(len(array), stable_hash(None), numpy.uint32)
    if pyarrow.types.is_string_view(array.type) or pyarrow.types.is_binary_view(array.type):
        array = array.cast(pyarrow.large_binary())
    made = _of_fixed(array)
    if made is not None:
        return _with_nulls(made, array)
    if _is_repetitive(array):
        return _of_dictionary(array.dictionary_encode())
    return _with_nulls(_of_objects(array), array)


def _of_fixed(array: Any) -> Hashes | None:
    """Of numbers and times, from the column's memory; None for another type."""
    import pyarrow.types as types

    kind = array.type
    if types.is_boolean(kind):
        return integer_hashes(_numbers(array.cast("int8")))
    if types.is_integer(kind):
        return integer_hashes(_numbers(array))
    if types.is_floating(kind):
        return float_hashes(_numbers(array))
    if types.is_date32(kind):
        return integer_hashes(_numbers(array.cast("int32")).astype(numpy.int64) * DAY)
    if types.is_date64(kind):
        return integer_hashes(_numbers(array.cast("int64")) // 86_400_000 * DAY)
    if types.is_timestamp(kind) or types.is_duration(kind):
        counts = _numbers(array.cast("int64"))
        return integer_hashes(counts // 1000 if kind.unit == "ns" else counts * _TO_MICROSECONDS[kind.unit])
    return None


def _numbers(array: Any) -> numpy.ndarray[Any, Any]:
    filled = array.fill_null(0) if array.null_count else array
    return cast("numpy.ndarray[Any, Any]", filled.to_numpy(zero_copy_only=False))


def _of_objects(array: Any) -> Hashes:
    """Of text and bytes as they lie there, of anything else by way of Python; nulls have any number."""
    import pyarrow
    import pyarrow.types as types

    kind = array.type
    if types.is_string(kind) or types.is_binary(kind):
        array = array.cast(pyarrow.binary())
    elif types.is_large_string(kind) or types.is_large_binary(kind):
        array = array.cast(pyarrow.large_binary())
    else:
        return hashes_of(array.to_pylist())
    filled = array.fill_null(b"") if array.null_count else array
    return numpy.fromiter(map(crc32, filled.to_pylist()), numpy.uint32, len(array))


def _of_dictionary(array: Any) -> Hashes:
    known = _hashes(array.dictionary)
    none = numpy.array([stable_hash(None)], numpy.uint32)
    return numpy.concatenate([known, none])[_numbers(array.indices.fill_null(len(known)))]


def _is_repetitive(array: Any) -> bool:
    places = numpy.arange(0, len(array), max(1, len(array) // SAMPLE))
    return is_sample_repetitive(array.take(places).to_pylist(), len(array))


def _with_nulls(made: Hashes, array: Any) -> Hashes:
    if array.null_count:
        made[array.is_null().to_numpy(zero_copy_only=False)] = stable_hash(None)
    return made
