"""Aggregates: one value for each key, computed on Arrow columns.

As in SQL, nulls are left out, except by ``count_all``. Sums of whole numbers are exact: where 64 bits might not do,
they are added up in 256.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
import pyarrow
import pyarrow.compute as compute
import pyarrow.types as types

from paibook.runtimes.mapreduce.arrow_partition import column_hashes
from paibook.runtimes.mapreduce.dense_groups import bound, densely_grouped
from paibook.runtimes.mapreduce.mistakes import WrongYield
from paibook.runtimes.mapreduce.table_shuffle import EXACT, plain, split_table

Column = Any  # pyarrow.ChunkedArray or pyarrow.Array
LARGE = 1 << 22  # rows from which a group-by looks whether its hash table will leave the cache
_SAMPLE = 1 << 16
_SLICES = 16
_COUNT_ALL = compute.CountOptions("all")


def grouped(
    keys: Sequence[Column], values: Sequence[Column], functions: Sequence[str]
) -> tuple[list[Column], list[Column]]:
    """Aggregate columns by key.

    Args:
        keys: At least one column.
        values: Columns as long as the keys.
        functions: For each of ``values``: ``sum``, ``count`` (without nulls), ``count_all``, ``min`` or ``max``.

    Returns:
        The key columns with each key once, in no order (Arrow promises none), and the results.

    Raises:
        WrongYield: A column of a type that the function does not take.
    """
    if len(keys) == 1 and (dense := densely_grouped(keys[0], values, functions)) is not None:
        return [dense[0]], dense[1]
    plain_keys = [_as_key(key) for key in keys]
    prepared = [_prepared(value, function) for value, function in zip(values, functions, strict=True)]
    names = [f"k{i}" for i in range(len(plain_keys))]
    wanted: list[Any] = []
    for i, function in enumerate(functions):
        wanted.append((f"v{i}", "count", _COUNT_ALL) if function == "count_all" else (f"v{i}", function))
    table = pyarrow.table([*plain_keys, *prepared], names=[*names, *(f"v{i}" for i in range(len(prepared)))])
    try:
        made = pyarrow.concat_tables(
            some.group_by(names, use_threads=False).aggregate(wanted) for some in _cut(table, len(names))
        )
    except pyarrow.ArrowNotImplementedError as error:
        listed = ", ".join(f"{function} of {value.type}" for function, value in zip(functions, values, strict=True))
        raise WrongYield(f"there is no such aggregate: {listed} ({error})") from error
    results = [
        _restored(made.column(len(names) + i), value.type, function)
        for i, (value, function) in enumerate(zip(values, functions, strict=True))
    ]
    found = [_key_again(column, key) for column, key in zip(made.columns, keys, strict=False)]
    return found, results


def grouped_rows(keys: Sequence[Column]) -> tuple[list[Column], Any]:
    """Each key once, and for each the list of the numbers of its rows."""
    rows = pyarrow.array(numpy.arange(len(keys[0])))
    found, (lists,) = grouped(keys, [rows], ["list"])
    return found, _one(lists)


def narrowed(sums: Column) -> Column:
    """Exact sums as 64-bit numbers where all of them fit."""
    return _fitting(sums, pyarrow.int64()) if sums.type == EXACT else sums


def with_decimals(table: pyarrow.Table) -> pyarrow.Table:
    """A table for others to see: sums beyond 64 bits as decimals of 128 bits, which all libraries know, if they fit."""
    for place, field in enumerate(table.schema):
        if field.type == EXACT:
            table = table.set_column(place, field.name, _fitting(table.column(place), pyarrow.decimal128(38, 0)))
    return table


def _fitting(column: Column, kind: Any) -> Column:
    try:
        return column.cast(kind)
    except pyarrow.ArrowInvalid:
        return column


def addable(column: Column) -> Column:
    """A column in the type that its sums have; durations and nulls as they are.

    Raises:
        WrongYield: What is in it cannot be added up.
    """
    column = plain(column)
    kind = column.type
    return column if types.is_null(kind) or types.is_duration(kind) else _addable(column)


def ones(rows: int) -> Column:
    """A column of counts of single values."""
    return pyarrow.array(numpy.ones(rows, numpy.int64))


def means(totals: Column, counts: Column) -> Column:
    """Totals divided by counts: durations and decimals as Python divides them, others as floats; null where nothing
    was counted."""
    kind = totals.type
    if types.is_duration(kind) or (types.is_decimal(kind) and kind != EXACT):
        return _divided(totals, counts)
    return compute.divide(totals.cast(pyarrow.float64(), safe=False), counts.cast(pyarrow.float64()))


def members(rows: Any, column: Column, depth: int) -> tuple[numpy.ndarray[Any, Any], Any]:
    """The values of each group that are not null, each with the number of its group.

    Args:
        rows: From ``grouped_rows``.
        column: Values (``depth`` 0) or lists of values (1).
        depth: How many lists to open.
    """
    parents = compute.list_parent_indices(rows)
    values = _one(plain(column)).take(compute.list_flatten(rows))
    if depth:
        parents = parents.take(compute.list_parent_indices(values))
        values = compute.list_flatten(values)
    if values.null_count:
        valid = values.is_valid()
        parents, values = parents.filter(valid), values.filter(valid)
    return parents.to_numpy(zero_copy_only=False), values


def greatest(parents: numpy.ndarray[Any, Any], values: Any, groups: int, k: int, largest: bool) -> Any:
    """A list of the ``k`` greatest (or least) values of each group, in order; NaN counts as beyond the last.

    Raises:
        WrongYield: Values that have no order.
    """
    how = "descending" if largest else "ascending"
    try:
        order = compute.sort_indices(
            pyarrow.table({"p": parents, "v": values}), [("p", "ascending"), ("v", how)]
        ).to_numpy()
    except (pyarrow.ArrowNotImplementedError, pyarrow.ArrowTypeError) as error:
        raise WrongYield(f"pai.TopK cannot put {values.type} values in order") from error
    counts = numpy.bincount(parents, minlength=groups)
    starts = numpy.cumsum(counts) - counts
    sorted_parents = parents[order]
    kept = numpy.arange(len(order)) - starts[sorted_parents] < k
    return _lists(values.take(pyarrow.array(order[kept])), numpy.minimum(counts, k))


def distinct(parents: numpy.ndarray[Any, Any], values: Any, groups: int) -> Any:
    """A list of the different values of each group, in order of first appearance."""
    places = pyarrow.array(numpy.arange(len(parents)))
    (owners, some), (first,) = grouped([pyarrow.array(parents), values], [places], ["min"])
    # Members stand group by group, so that the order of the places is that of the groups too.
    order = numpy.argsort(first.to_numpy(), kind="stable")
    return _lists(_one(some).take(pyarrow.array(order)), numpy.bincount(owners.to_numpy(), minlength=groups))


def _divided(totals: Column, counts: Column) -> Column:
    kind, both = totals.type, zip(totals.to_pylist(), counts.to_pylist(), strict=True)
    made = [total / count if count else None for total, count in both]
    if types.is_duration(kind):
        return pyarrow.array(made, pyarrow.duration("ns" if kind.unit == "ns" else "us"))
    return pyarrow.array(made)  # the scale follows from the quotients


def _lists(values: Any, counts: numpy.ndarray[Any, Any]) -> Any:
    offsets = numpy.concatenate([[0], numpy.cumsum(counts)])
    return pyarrow.LargeListArray.from_arrays(pyarrow.array(offsets, pyarrow.int64()), values)


def _cut(table: pyarrow.Table, keys: int) -> list[pyarrow.Table]:
    """Large tables of many different keys in slices by key, each of whose hash tables stays in the cache.

    By the highest bits of the hash: buckets of the shuffle, from which the rows may come, are cut by the lowest.
    """
    if table.num_rows < LARGE or not types.is_integer(table.schema.field(0).type):
        return [table]
    sample = table.slice(0, _SAMPLE).group_by(table.column_names[:keys], use_threads=False).aggregate([])
    if sample.num_rows < _SAMPLE // 4:
        return [table]
    numbers = column_hashes(table.column(0)) >> numpy.uint32(28)
    return [some for some in split_table(table, numbers, _SLICES) if some is not None]


def _one(column: Column) -> Any:
    if not isinstance(column, pyarrow.ChunkedArray):
        return column
    made = column.combine_chunks()
    return pyarrow.concat_arrays(made.chunks) if isinstance(made, pyarrow.ChunkedArray) else made


def _as_key(column: Column) -> Column:
    column = plain(column)
    kind = column.type
    if types.is_null(kind):  # Arrow 26 crashes on a group-by of these
        return column.cast(pyarrow.int8())
    if types.is_floating(kind):
        # Arrow groups by bits: one NaN for all, and no minus zero, so that equal keys are one.
        wide = column.cast(pyarrow.float64())
        return compute.if_else(compute.is_nan(wide), float("nan"), compute.add(wide, 0.0))
    return column.cast(pyarrow.int64()) if types.is_duration(kind) else column


def _prepared(column: Column, function: str) -> Column:
    """The column as a type that Arrow's kernel takes."""
    column = plain(column)
    kind = column.type
    if types.is_null(kind) or types.is_duration(kind):
        column = column.cast(pyarrow.int64())
    elif types.is_float16(kind):
        column = column.cast(pyarrow.float64())
    return _addable(column) if function == "sum" else column


def _addable(column: Column) -> Column:
    kind = column.type
    if types.is_floating(kind):
        return column.cast(pyarrow.float64())
    if types.is_boolean(kind):
        return column.cast(pyarrow.int8()).cast(pyarrow.int64())
    if types.is_integer(kind):
        return column.cast(EXACT if bound(column) >= 1 << 63 else pyarrow.int64())
    if types.is_decimal(kind):
        return column if kind.bit_width > 128 else _addable_decimals(column)
    raise WrongYield(f"pai.Sum and pai.Mean add numbers; this column is of type {kind}")


def _addable_decimals(column: Column) -> Column:
    scale = column.type.scale
    column = column.cast(pyarrow.decimal128(38, scale))
    # Arrow's sums would wrap around.
    return column.cast(pyarrow.decimal256(76, scale)) if bound(column) >= 10 ** (38 - scale) else column


def _key_again(column: Column, key: Column) -> Column:
    """A key column in the type it had."""
    kind = plain(key.slice(0, 0)).type
    if types.is_null(kind):
        return pyarrow.chunked_array([pyarrow.nulls(len(column))])
    return column.cast(kind)


def _restored(result: Column, kind: Any, function: str) -> Column:
    """Results of durations as durations again, and those of nothing but nulls without a guessed type."""
    if function not in ("sum", "min", "max"):
        return result
    if types.is_null(kind):
        return pyarrow.chunked_array([pyarrow.nulls(len(result))])
    return result.cast(kind) if types.is_duration(kind) or (types.is_float16(kind) and function != "sum") else result
