"""What the two Dask sides share: a local cluster of processes with one thread each."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.mapreduce_jobs.serving import workers


@contextmanager
def cluster() -> Iterator[Any]:
    """A client of a fresh local cluster whose workers are there."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=workers(), threads_per_worker=1, dashboard_address=None) as local,
        Client(local) as client,
    ):
        client.wait_for_workers(workers())
        client.run(_warm)
        yield client


def _warm() -> None:
    """Load on every worker what the jobs use."""
    for name in ("dask.dataframe", "pandas", "pyarrow.parquet"):
        importlib.import_module(name)
