"""The local Dask cluster: as many workers as were asked for, whichever of them die, and whenever."""

from __future__ import annotations

import asyncio
from typing import Any

from distributed import LocalCluster, Nanny
from distributed.core import Status
from distributed.deploy.cluster import Cluster

LOOK_SECONDS = 1.0  # between looks at whether the workers that were lost are back

# Dask has glibc give back every array at once (MALLOC_TRIM_THRESHOLD_ of 64 kB, which also fixes the size from which an
# array is a mapping of its own): each new one is then zeroed page by page, a third of the time of a shuffle of columns.
# Keep up to 64 MiB instead, and map only arrays of 32 MiB (the largest bound that glibc takes).
HEAP = {"MALLOC_TRIM_THRESHOLD_": str(64 << 20), "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}


class WorkerNanny(Nanny):
    """A nanny whose worker keeps some of the memory it has freed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pre_spawn_env |= HEAP  # which glibc reads when the process begins
        self.env |= HEAP  # for the worker's own children


class LastingCluster(LocalCluster):
    """A ``LocalCluster`` that does not give up workers.

    Dask looks 15 s after a worker was lost whether one of its name is there, and if not, closes its nanny for good:
    also where the worker came back long ago and was lost again just now. Workers that die every now and then all end
    so, and whoever waits for a task waits for ever.
    """

    def _update_worker_status(self, op: str, msg: Any) -> None:
        if op == "remove":
            Cluster._update_worker_status(self, op, msg)  # without what SpecCluster does about it
            asyncio.get_running_loop().call_later(LOOK_SECONDS, self._replace_closed)
        else:
            super()._update_worker_status(op, msg)

    def _replace_closed(self) -> None:
        """Start workers in the place of those whose nanny gave up; the others' nannies restart them by themselves."""
        missing = len(self.worker_spec) - len(self.scheduler_info["workers"])
        if missing <= 0 or self.status != Status.running:
            return
        closed = [name for name, nanny in self.workers.items() if nanny.status in (Status.closed, Status.failed)]
        for name in closed:
            del self.workers[name]
        if closed:
            self._correct_state()
        asyncio.get_running_loop().call_later(LOOK_SECONDS, self._replace_closed)
