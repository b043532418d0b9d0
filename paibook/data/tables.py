"""Parquet files as one dict per row, and rows of tables in general."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow.parquet

from paibook.data.batch import Batch
from paibook.data.formats import open_bytes

ROWS = 4096  # rows of a batch


def parquet_batches(url: str, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
    """Rows of a Parquet file's row groups ``start`` to ``stop`` as dicts."""
    with open_bytes(url) as file:
        table = pyarrow.parquet.ParquetFile(file)
        groups = range(start, table.num_row_groups if stop is None else stop)
        row = sum(table.metadata.row_group(group).num_rows for group in range(start))
        for batch in table.iter_batches(ROWS, row_groups=list(groups)):
            records = rows_of(batch)
            yield Batch(records, lambda index, row=row: f"{url}, row {row + index}")  # type: ignore[misc]
            row += len(records)


def rows_of(batch: Any) -> list[dict[str, Any]]:
    """The rows of an Arrow table or record batch as dicts of Python values."""
    names = batch.schema.names
    columns = [column.to_pylist() for column in batch.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
