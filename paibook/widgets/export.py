"""Metrics as files: pictures of the static figure, tables of every report."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from paibook.metrics import NO_STEP, MetricStream
from paibook.widgets.decimation import History
from paibook.widgets.figure import png, svg

FORMATS = {
    "png": "image/png",
    "svg": "image/svg+xml",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
}


def export(streams: Mapping[str, MetricStream], kind: str, title: str = "") -> bytes:
    """The metrics of runs as one file.

    Args:
        streams: By label.
        kind: One of ``FORMATS``. CSV and Parquet have every report, with columns run, step, name, value, rank, time.
        title: Above a picture.

    Raises:
        ValueError: The kind is not known.
    """
    if kind not in FORMATS:
        raise ValueError(f"metrics are exported as {', '.join(FORMATS)}; got {kind!r}")
    if kind in ("png", "svg"):
        histories = {label: History(stream.columns()) for label, stream in streams.items()}
        return png(histories, title) if kind == "png" else svg(histories, title).encode()
    table = _table(streams)
    out = io.BytesIO()
    if kind == "csv":
        from pyarrow import csv

        csv.write_csv(table, out)
    else:
        from pyarrow import parquet

        parquet.write_table(table, out)
    return out.getvalue()


def _table(streams: Mapping[str, MetricStream]) -> Any:
    import numpy as np
    import pyarrow as pa

    parts = []
    for label, stream in streams.items():
        columns = stream.columns()
        name = pa.DictionaryArray.from_arrays(pa.array(columns.code), pa.array(columns.names, pa.string()))
        run = pa.array([stream.run or label], pa.string()).take(pa.array(np.zeros(len(columns), np.int8)))
        step = pa.array(columns.step, mask=columns.step == NO_STEP)
        arrays = [run, step, name.cast(pa.string()), pa.array(columns.value), pa.array(columns.rank)]
        fields = ["run", "step", "name", "value", "rank", "time"]
        parts.append(pa.table([*arrays, pa.array(columns.time)], fields))
    return pa.concat_tables(parts)
