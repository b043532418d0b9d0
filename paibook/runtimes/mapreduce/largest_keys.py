"""Largest keys: those with the most values, noted on the way to reduce, for the summary."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Any

import numpy
import pyarrow

from paibook.runtimes.mapreduce.memory import size_of
from paibook.runtimes.mapreduce.report import KeySize, Report
from paibook.runtimes.mapreduce.spilled_values import SpilledValues

KEPT = 10
SAMPLE = 20_000  # rows of a table that are looked at

Found = Iterator[tuple[Any, Sequence[Any]]]


def largest_of(items: Sequence[tuple[Any, Sequence[Any]]]) -> list[KeySize]:
    """The largest of keys that are in memory with their values."""
    return [_size(key, values) for key, values in heapq.nlargest(KEPT, items, key=lambda item: len(item[1]))]


def largest_among(sizes: Sequence[KeySize]) -> list[KeySize]:
    """The largest of those found in several parts of a partition that have no key in common."""
    return heapq.nlargest(KEPT, sizes, key=lambda size: size.values)


def watched(items: Found, report: Report) -> Found:
    """The same keys with their values; at their end the largest stand in the report."""
    kept: list[tuple[int, int, KeySize]] = []
    for number, (key, values) in enumerate(items):
        count = len(values)
        if len(kept) < KEPT:
            heapq.heappush(kept, (count, number, _size(key, values)))
        elif count > kept[0][0]:
            heapq.heapreplace(kept, (count, number, _size(key, values)))
        yield key, values
    report.largest = [size for _, _, size in sorted(kept, reverse=True)]


def largest_in(table: pyarrow.Table, keys: Sequence[str]) -> list[KeySize]:
    """The largest keys of a table; of a large one by a sample of its rows, which a large key cannot escape."""
    step = -(-table.num_rows // SAMPLE) or 1
    rows = table.select(list(keys))
    if step > 1:
        rows = rows.take(numpy.arange(0, table.num_rows, step))
    try:
        counted = rows.group_by(list(keys)).aggregate([([], "count_all")]).sort_by([("count_all", "descending")])
    except pyarrow.ArrowException:  # keys of a type that Arrow does not group by
        return []
    each = table.nbytes / max(1, table.num_rows)
    return [_of_row(row, step, each) for row in counted.slice(0, KEPT).to_pylist()]


def _of_row(row: dict[str, Any], step: int, each: float) -> KeySize:
    count = row.pop("count_all") * step
    key = next(iter(row.values())) if len(row) == 1 else tuple(row.values())
    return KeySize(f"{key!r:.80}", count, int(count * each))


def _size(key: Any, values: Sequence[Any]) -> KeySize:
    size = values.memory if isinstance(values, SpilledValues) else size_of(values)
    return KeySize(f"{key!r:.80}", len(values), size)
