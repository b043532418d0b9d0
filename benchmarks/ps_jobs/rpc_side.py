"""torch RPC: ``torchrun --nproc-per-node 2``; a worker calls functions of the server's process, rank 0."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch.distributed import rpc

from benchmarks.ps_jobs import work

SERVER, WORKER = "server", "worker"
_models: dict[str, work.Model] = {}


class RemoteTable:
    """A job's table on the server."""

    def __init__(self, job: work.Job) -> None:
        self._name = job.name
        rpc.rpc_sync(SERVER, make, (job,))

    def pull(self, keys: work.Keys | None) -> Any:
        """See ``work.Table``."""
        return rpc.rpc_sync(SERVER, pull, (self._name, _tensor(keys))).numpy()

    def push(self, keys: work.Keys | None, gradient: work.Array) -> None:
        """See ``work.Table``."""
        rpc.rpc_sync(SERVER, push, (self._name, _tensor(keys), torch.from_numpy(gradient)))


def make(job: work.Job) -> None:
    """On the server."""
    _models[job.name] = work.Model(job)


def pull(name: str, keys: Any) -> Any:
    """On the server."""
    return torch.from_numpy(_models[name].pull(None if keys is None else keys.numpy()))


def push(name: str, keys: Any, gradient: Any) -> None:
    """On the server."""
    _models[name].push(None if keys is None else keys.numpy(), gradient.numpy())


def _tensor(keys: work.Keys | None) -> Any:
    return None if keys is None else torch.from_numpy(keys)


def main() -> None:
    """Either process."""
    rank = int(os.environ["RANK"])
    rpc.init_rpc((SERVER, WORKER)[rank], rank=rank, world_size=2)
    if rank == 1:
        work.write(work.found(RemoteTable))
    rpc.shutdown()


if __name__ == "__main__":
    # Functions travel by name, and `__main__` has none of them on the other side.
    from benchmarks.ps_jobs import rpc_side

    rpc_side.main()
