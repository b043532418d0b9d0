"""A rank's membership in a world: kept in its namespace, because it lives exactly as long as the rank does."""

from __future__ import annotations

import importlib
import os
import shutil
import threading
from collections.abc import Sequence
from typing import Any

from paibook.clusters.contract import Place
from paibook.comms import segment, torchrun
from paibook.comms.communicator import Communicator, CommunicatorError
from paibook.comms.deferred import DeferredCommunicator
from paibook.comms.rendezvous import host_identity, new_folder, own_address
from paibook.comms.shared_memory import SharedMemoryCommunicator
from paibook.comms.threads import ThreadCommunicator, ThreadGroup
from paibook.errors import PaibookError
from paibook.runtimes.allreduce.cell import Introduction, World
from paibook.runtimes.allreduce.interrupts import TorchSockets
from paibook.runtimes.allreduce.keeper import Keeper

_KEY = "__paibook_member__"
_of_this_process: dict[str, Member] = {}  # outlives a namespace that the user has emptied


_imports: list[threading.Thread] = []


def import_torch() -> None:
    """Import torch in a thread, where an interrupt does not reach it: half imported, it never can be again."""
    if not _imports:
        thread = threading.Thread(target=_import, name="paibook-import", daemon=True)
        thread.start()
        _imports.append(thread)
    settle_import()


def settle_import() -> None:
    """Wait for an import whose wait was interrupted: when two threads import torch, one may find it half made."""
    for thread in _imports:
        thread.join()


def _import() -> None:
    try:
        importlib.import_module("paibook.comms.gloo")
    except PaibookError:
        pass  # whoever needs it imports it again, and gets the error


class Member:
    """One rank's side of its world: the group behind ``comm``, made when it is first used.

    Attributes:
        comm: What cells know as ``comm``; the same object as long as the rank lives.
        sockets: For freeing the rank from torch's own collectives.
        keeper: Of snapshots, from world to world.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.comm = DeferredCommunicator(rank, 0, self._connect)
        self.sockets = TorchSockets()
        self.keeper = Keeper()
        self._world: World | None = None
        self._present: tuple[int, ...] = ()
        self._communicator: Communicator | None = None
        self._store: torchrun.StoreHost | None = None

    @classmethod
    def of(cls, place: Place) -> Member:
        """The place's member, made at the first call."""
        member = place.namespace.get(_KEY) or _of_this_process.get(place.role)
        if not isinstance(member, cls):
            member = cls(place.rank)
        member.rank = place.rank  # it moves up when a group goes on without its lost ranks
        place.namespace[_KEY] = member
        return member

    def introduce(self, role: str, one_host: bool, token: bytes) -> Introduction:
        """Leave the world this process is in and say what the driver needs for the next; rank 0 opens its stores.

        Args:
            one_host: Whether all ranks seem to share a host.
            token: What lets the ranks into each other's keepers of snapshots.
        """
        _of_this_process[role] = self
        self.leave()
        torchrun.end_groups()
        host_address = "127.0.0.1" if one_host else own_address()
        keeper = self.keeper.listen(host_address, token)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if self.rank != 0:
            return Introduction(host_identity(), host_address, cores, keeper, segment.supported())
        # A new port every time: torch's store remembers the addresses of groups that are gone.
        if self._store is not None:
            self._store.close()
        self._store = torchrun.StoreHost(host_address)
        return Introduction(
            host_identity(), host_address, cores, keeper, segment.supported(), new_folder(), self._store.address
        )

    def enter(self, world: World, present: Sequence[int]) -> None:
        """Get ready for a cell that runs on the ranks ``present`` of a world."""
        if self._world is None or world.id != self._world.id:
            self.leave()
            self._world = world
            self.comm.point_to(self.rank, world.size, self._connect)
            if not world.threads:
                torchrun.set_environment(dict(world.environments[self.rank]))
        self._present = tuple(present)

    def leave(self) -> None:
        """End the group, freeing peers that wait in it."""
        world, communicator = self._world, self._communicator
        self._world = self._communicator = None
        if world is not None and world.meeting.folder is not None:
            # A rank 0 that was killed while the group was forming has left it.
            shutil.rmtree(world.meeting.folder_of(world.id), ignore_errors=True)
        if communicator is not None:
            communicator.abort()

    def tidy(self) -> None:
        """Call after a cell that ended well: let the next one call ``init_process_group`` again."""
        if self._store is not None and not torchrun.initialized():
            self._store.forget()

    @property
    def steps(self) -> tuple[Any, ...]:
        """See ``Communicator.steps``; a fourth number counts the collectives of torch's default group."""
        steps = (0, 0, 0) if self._communicator is None else self._communicator.steps
        in_process = self._world is None or self._world.threads
        return (*steps, 0 if in_process else torchrun.operations())

    def _connect(self) -> Communicator:
        world = self._world
        if world is None:
            raise CommunicatorError("comm: this rank is in no group; it joins one when a %%pai_allreduce cell runs")
        if len(self._present) != world.size:
            ranks = f"rank{'s' if len(self._present) > 1 else ''} {', '.join(str(rank) for rank in self._present)}"
            raise CommunicatorError(
                f"comm needs all {world.size} ranks, and this cell runs on {ranks} only; run it without --targets"
            )
        if self._communicator is None:
            self._communicator = self._new_communicator(world)
        return self._communicator

    def _new_communicator(self, world: World) -> Communicator:
        if world.threads:
            return ThreadCommunicator(ThreadGroup.named(world.id, world.size), self.rank)
        if world.shared_memory:
            return SharedMemoryCommunicator(self.rank, world.size, world.meeting, world.id)
        import_torch()
        from paibook.comms.gloo import TorchCommunicator  # torch takes a second to import, and may be absent

        return TorchCommunicator(self.rank, world.size, world.meeting, world.id)
