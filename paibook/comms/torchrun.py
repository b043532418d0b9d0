"""The store behind ``torch.distributed.init_process_group`` on ranks that torchrun did not start.

torchrun sets ``MASTER_ADDR`` and ``MASTER_PORT`` to a TCPStore that its agent hosts. Here rank 0 listens from the
start, on loopback when all ranks share a host, and makes the store when the first client knocks: torch is imported
only if somebody uses it, and no other process can take the port in between. TCPStore authenticates nobody: on one host
any local user could reach it, across hosts anybody on the network, exactly as under torchrun.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
from typing import Any

PRIVATE = "paibook-"  # marks the keys of comm's own group, which outlives a cell
_AGENT_STORE = "TORCHELASTIC_USE_AGENT_STORE"  # torch: every rank is a client of MASTER_ADDR:MASTER_PORT


class StoreHost:
    """A listening socket that becomes a TCPStore when it is first used.

    Args:
        host: The address to listen on.
    """

    def __init__(self, host: str) -> None:
        self._listener = socket.create_server((host, 0), backlog=128)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._wake, self._woken = socket.socketpair()
        self._store: Any = None
        threading.Thread(target=self._serve, name="paibook-torch-store", daemon=True).start()

    def forget(self) -> None:
        """Drop what finished process groups left, so that ``init_process_group`` can be called again."""
        if self._store is not None:
            for key in self._store.list_keys():
                if PRIVATE not in key:
                    self._store.delete_key(key)

    def close(self) -> None:
        """Stop listening."""
        self._wake.close()
        self._store = None

    def _serve(self) -> None:
        ready, _, _ = select.select([self._listener, self._woken], [], [])
        self._woken.close()
        if self._listener not in ready:
            self._listener.close()
            return
        import torch.distributed as dist

        host, port = self.address
        descriptor = self._listener.detach()
        self._store = dist.TCPStore(host, port, is_master=True, wait_for_workers=False, master_listen_fd=descriptor)


def set_environment(variables: dict[str, str]) -> None:
    """Give this process torchrun's variables; a number of threads that the user chose is kept."""
    chosen = dict(variables)
    if os.environ.get("OMP_NUM_THREADS", _threads_set) != _threads_set:
        del chosen["OMP_NUM_THREADS"]
    else:
        _remember_threads(chosen["OMP_NUM_THREADS"])
    os.environ.update(chosen, **{_AGENT_STORE: "True"})


def imported(name: str) -> Any:
    """A module that this process has imported; None where it has not, or another thread is still at it."""
    module = sys.modules.get(name)
    return None if getattr(getattr(module, "__spec__", None), "_initializing", False) else module


def initialized() -> bool:
    """Whether the user has made torch's default process group; does not import torch."""
    dist = imported("torch.distributed")
    return dist is not None and dist.is_available() and dist.is_initialized()


def operations() -> int:
    """How many collectives the user's default process group has begun; 0 when there is none."""
    return int(sys.modules["torch.distributed"].group.WORLD._get_sequence_number_for_group()) if initialized() else 0


def end_groups() -> None:
    """End the user's process groups, so that ``init_process_group`` can be called again."""
    dist = imported("torch.distributed")
    if initialized():
        sys.modules["torch.distributed"].destroy_process_group()
    elif dist is not None and dist.is_available():
        # An interrupted init_process_group counted its group on this rank alone; groups are named by that count.
        dist.distributed_c10d._world.group_count = 0


_threads_set = ""


def _remember_threads(number: str) -> None:
    global _threads_set
    _threads_set = number
    torch = imported("torch")
    if torch is not None:
        torch.set_num_threads(int(number))
