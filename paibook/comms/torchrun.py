"""The store behind ``torch.distributed.init_process_group`` on ranks that torchrun did not start.

torchrun sets ``MASTER_ADDR`` and ``MASTER_PORT`` to a TCPStore that its agent hosts. Here rank 0 listens from the
start, on loopback when all ranks share a host, and makes the store when the first client knocks: torch is imported
only if somebody uses it, and no other process can take the port in between. TCPStore authenticates nobody: on one host
any local user could reach it, across hosts anybody on the network, exactly as under torchrun.
"""

from __future__ import annotations

import importlib
import os
import select
import socket
import sys
import threading
import time
from typing import Any

IMPORT_SECONDS = 3.0
IMPORT_POLL_SECONDS = 0.01
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
        self._closed = threading.Event()
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
        self._closed.set()
        self._wake.close()
        self._store = None

    def _serve(self) -> None:
        ready, _, _ = select.select([self._listener, self._woken], [], [])
        self._woken.close()
        dist = self._torch_distributed() if self._listener in ready else None
        if dist is None:
            self._listener.close()
            return
        host, port = self.address
        descriptor = self._listener.detach()
        self._store = dist.TCPStore(host, port, is_master=True, wait_for_workers=False, master_listen_fd=descriptor)

    def _torch_distributed(self) -> Any:
        """Wait for the cell to import ``torch.distributed``, as mostly every rank does; None if closed meanwhile.

        If this thread imported it at the same time, Python could find the two waiting for each other's module locks
        and fail one of the imports; and a torch that was imported by half ends its process.
        """
        patience = time.monotonic() + IMPORT_SECONDS
        while not self._closed.wait(IMPORT_POLL_SECONDS):
            if imported("torch") is not None and (dist := imported("torch.distributed")) is not None:
                return dist
            if "torch" not in sys.modules and time.monotonic() > patience:
                importlib.import_module("torch")  # this rank may not be in the cell that needs its store
                importlib.import_module("torch.distributed")
        return None


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
    group = sys.modules["torch.distributed"].group.WORLD if initialized() else None
    return 0 if group is None else int(group._get_sequence_number_for_group())  # another thread may just have ended it


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
