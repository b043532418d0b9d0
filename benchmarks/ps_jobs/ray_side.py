"""Ray: the server is an actor; this process, the driver, is the worker."""

from __future__ import annotations

from typing import Any

import ray

from benchmarks.ps_jobs import work


class RemoteTable:
    """A job's table in an actor of its own."""

    def __init__(self, job: work.Job) -> None:
        self._server: Any = ray.remote(work.Model).remote(job)

    def pull(self, keys: work.Keys | None) -> Any:
        """See ``work.Table``."""
        return ray.get(self._server.pull.remote(keys))

    def push(self, keys: work.Keys | None, gradient: work.Array) -> None:
        """See ``work.Table``."""
        ray.get(self._server.push.remote(keys, gradient))


if __name__ == "__main__":
    ray.init(num_cpus=len(work.JOBS), include_dashboard=False, log_to_driver=False)
    work.write(work.found(RemoteTable))
    ray.shutdown()
