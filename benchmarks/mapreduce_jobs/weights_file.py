"""A part file of weights, for the sides that write their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow
import pyarrow.parquet

from benchmarks.mapreduce_jobs.words import weights


def write_weights(groups: Iterable[tuple[str, Sequence[tuple[str, int]]]], documents: int, file: str) -> int:
    """Write the rows of some words, each with where it was found; returns how many rows these are."""
    columns: tuple[list[Any], ...] = ([], [], [])
    for word, found in groups:
        for column, values in zip(columns, weights(word, found, documents), strict=True):
            column += values
    table = pyarrow.table(dict(zip(("word", "id", "weight"), columns, strict=True)))
    pyarrow.parquet.write_table(table, file)
    return table.num_rows
