"""Aggregates: one value for each key, computed on Arrow columns.

Groups come in the order in which their keys first appear. As in SQL, nulls are left out, except by ``count_all``. Sums of
whole numbers are exact: where 64 bits might not do, they are added up in 256.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
import pyarrow
import pyarrow.compute as compute
import pyarrow.types as types

from paibook.runtimes.mapreduce.arrow_partition import column_hashes
from paibook.runtimes.mapreduce.mistakes import WrongYield
from paibook.runtimes.mapreduce.table_shuffle import split_table

Column = Any  # pyarrow.ChunkedArray or pyarrow.Array
EXACT = pyarrow.decimal256(76, 0)  # of sums beyond 64 bits; nobody else's columns are likely to have it
LARGE = 1 << 20  # rows from which a group-by looks whether its hash table will leave the cache
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
        functions: For each of ``values``: ``sum``, ``count`` (without nulls), ``count_all``, ``min``, ``max`` or
            ``list``.

    Returns:
        The key columns with each key once, and the results.

    Raises:
        WrongYield: A column of a type that the function does not take.
    """
    plain = [_as_key(key) for key in keys]
    prepared = [_prepared(value, function) for value, function in zip(values, functions, strict=True)]
    names = [f"k{i}" for i in range(len(plain))]
    wanted: list[Any] = []
    for i, function in enumerate(functions):
        wanted.append((f"v{i}", "count", _COUNT_ALL) if function == "count_all" else (f"v{i}", function))
    table = pyarrow.table([*plain, *prepared], names=[*names, *(f"v{i}" for i in range(len(prepared)))])
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
    return made.columns[: len(names)], results


def narrowed(sums: Column) -> Column:
    """Exact sums as 64-bit numbers where all of them fit, else as decimals of 128 bits where these do."""
    if sums.type != EXACT:
        return sums
    for kind in (pyarrow.int64(), pyarrow.decimal128(38, 0)):
        try:
            return sums.cast(kind)
        except pyarrow.ArrowInvalid:
            continue
    return sums


def means(totals: Column, counts: Column) -> Column:
    """Totals divided by counts, as floats; null where nothing was counted."""
    return compute.divide(totals.cast(pyarrow.float64(), safe=False), counts.cast(pyarrow.float64()))


def members(lists: Column, depth: int) -> tuple[numpy.ndarray[Any, Any], Any]:
    """The members of lists that are not null, each with the number of its list.

    Args:
        lists: Lists of values (``depth`` 1), or lists of lists of values (2).
        depth: How many lists to open.
    """
    array = _one(lists)
    parents = compute.list_parent_indices(array)
    values = compute.list_flatten(array)
    if depth == 2:
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
            pyarrow.table({"p": parents, "v": values}), [("p", "ascending"), ("v", how)], null_placement="at_end"
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
    (owners, some), _ = grouped([pyarrow.array(parents), values], [], [])
    numbers = owners.to_numpy()
    order = numpy.argsort(numbers, kind="stable")
    return _lists(_one(some).take(pyarrow.array(order)), numpy.bincount(numbers, minlength=groups))


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
    column = _decoded(column)
    kind = column.type
    if types.is_null(kind):  # Arrow 26 crashes on a group-by of these
        return column.cast(pyarrow.int8())
    if types.is_floating(kind):
        # Arrow groups by bits: one NaN for all, and no minus zero, so that equal keys are one.
        wide = column.cast(pyarrow.float64())
        return compute.if_else(compute.is_nan(wide), float("nan"), compute.add(wide, 0.0))
    return column.cast(pyarrow.int64()) if types.is_duration(kind) else column


def _decoded(column: Column) -> Column:
    kind = column.type
    if types.is_dictionary(kind):
        return column.cast(kind.value_type)
    return column.cast(pyarrow.large_string()) if types.is_string_view(kind) else column


def _prepared(column: Column, function: str) -> Column:
    """The column as a type that Arrow's kernel takes."""
    column = _decoded(column)
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
        return column.cast(pyarrow.int8())
    if types.is_integer(kind):
        ends = compute.min_max(column)
        bound = max(abs(ends["min"].as_py() or 0), abs(ends["max"].as_py() or 0)) * len(column)
        return column.cast(EXACT) if bound >= 1 << 63 else column.cast(pyarrow.int64())
    if types.is_decimal(kind):
        return column.cast(pyarrow.decimal256(76, kind.scale)) if kind.bit_width == 256 else column
    raise WrongYield(f"pai.Sum and pai.Mean add numbers; this column is of type {kind}")


def _restored(result: Column, kind: Any, function: str) -> Column:
    """Results of durations as durations again, and sums of nothing but nulls without a guessed type."""
    if not function.startswith("count") and types.is_duration(kind):
        return result.cast(pyarrow.list_(kind) if function == "list" else kind)
    if types.is_null(kind) and function != "list" and not function.startswith("count"):
        return pyarrow.chunked_array([pyarrow.nulls(len(result))])
    return result
