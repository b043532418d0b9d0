"""Process groups of torch for one use after another by the same ranks, such as training by DistributedDataParallel.

A gloo group cannot be taken down safely: dropping the last reference joins its threads with the interpreter's lock
held, and may wait for ever. So one is made for each set of ranks and lent again and again. It is not registered with
torch: a cell may make its own default group, and end it.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.constants import default_pg_timeout

from paibook.comms import sockets
from paibook.comms.communicator import Communicator

_KIND = dist.ProcessGroup.BackendType.GLOO


@dataclass(frozen=True)
class _Kept:
    name: str
    group: Any
    sockets: frozenset[int]


_Ranks = tuple[str, str, tuple[int, ...]]  # the store of their world, and their ranks there
_kept: dict[_Ranks, _Kept] = {}
_all: list[Any] = []  # nothing is dropped, wherever an interrupt comes


@contextmanager
def lent(comm: Communicator) -> Iterator[Any]:
    """A gloo process group of the ranks of ``comm``, which are processes; all of them call it.

    One that a block has left by an exception is not lent again.

    Raises:
        RuntimeError: The ranks could not connect to each other.
    """
    ranks = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"], comm.Get_group().members
    mine = _kept.pop(ranks, None)
    names = comm.allgather(None if mine is None else mine.name)
    if mine is None or len(set(names)) > 1:  # the first time, or a rank has left it in the middle
        mine = _made(comm.bcast(uuid.uuid4().hex), comm)
    yield mine.group
    comm.Barrier()  # a peer may still be in the last operation
    _kept[ranks] = mine


def connections() -> set[int]:
    """The sockets of the groups that are kept, as ``sockets.inodes`` identifies them."""
    return {inode for kept in _kept.values() for inode in kept.sockets}


def _made(name: str, comm: Communicator) -> _Kept:
    before = sockets.inodes()
    server = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    # Under a name of its own: the store remembers the addresses of groups that are gone.
    store = dist.PrefixStore(f"fit-{name}", server)
    gloo = dist.ProcessGroupGloo(store, comm.rank, comm.size, default_pg_timeout)
    _all.append(gloo)
    gloo._set_sequence_number_for_group()
    group = dist.ProcessGroup(store, comm.rank, comm.size)
    _all.append(group)
    group._set_default_backend(_KIND)
    group._register_backend(torch.device("cpu"), _KIND, gloo)
    group._set_group_name(name)
    return _Kept(name, group, frozenset(sockets.inodes() - before))
