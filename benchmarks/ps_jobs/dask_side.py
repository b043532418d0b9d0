"""Dask: the server is an actor on the one worker of a cluster; this process, the client, is the worker of the job."""

from __future__ import annotations

from typing import Any

from distributed import Client, LocalCluster

from benchmarks.ps_jobs import work


class RemoteTable:
    """A job's table in an actor."""

    def __init__(self, client: Client, job: work.Job) -> None:
        self._server: Any = client.submit(work.Model, job, actor=True).result()

    def pull(self, keys: work.Keys | None) -> Any:
        """See ``work.Table``."""
        return self._server.pull(keys).result()

    def push(self, keys: work.Keys | None, gradient: work.Array) -> None:
        """See ``work.Table``."""
        self._server.push(keys, gradient).result()


if __name__ == "__main__":
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        work.write(work.found(lambda job: RemoteTable(client, job)))
