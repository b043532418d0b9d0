"""A rank's membership in a world: kept in its namespace, because it lives exactly as long as the rank does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from paibook.clusters import lifeline
from paibook.clusters.contract import Place
from paibook.comms import torchrun
from paibook.comms.backends import BACKENDS, lacking, mpi_place
from paibook.comms.communicator import Communicator, CommunicatorError
from paibook.comms.deferred import DeferredCommunicator
from paibook.comms.rendezvous import host_identity, new_folder, own_address
from paibook.comms.threads import ThreadCommunicator, ThreadGroup
from paibook.comms.traffic import Traffic
from paibook.runtimes.allreduce.cell import Introduction, World
from paibook.runtimes.allreduce.interrupts import TorchSockets
from paibook.runtimes.allreduce.keeper import Keeper

_KEY = "__paibook_member__"
_of_this_process: dict[str, Member] = {}  # outlives a namespace that the user has emptied


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
        self._torch_before = 0
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

    def introduce(self, role: str, one_host: bool, token: bytes, backends: Sequence[str]) -> Introduction:
        """Leave the world this process is in and say what the driver needs for the next; rank 0 opens its stores.

        Args:
            one_host: Whether all ranks seem to share a host.
            token: What lets the ranks into each other's keepers of snapshots.
            backends: Say what this process lacks for these.
        """
        _of_this_process[role] = self
        self.leave()
        torchrun.end_groups()
        host_address = "127.0.0.1" if one_host else own_address()
        made = Introduction(
            host_identity(),
            host_address,
            cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            keeper=self.keeper.listen(host_address, token),
            lacks=lacking(backends),
            folder=new_folder(lifeline.own_folder()),
            place=mpi_place(),
        )
        if self.rank != 0:
            return made
        # A new port every time: torch's store remembers the addresses of groups that are gone.
        if self._store is not None:
            self._store.close()
        self._store = torchrun.StoreHost(host_address)
        return replace(made, store=self._store.address)

    def enter(self, world: World, present: Sequence[int]) -> None:
        """Get ready for a cell that runs on the ranks ``present`` of a world."""
        if self._world is None or world.id != self._world.id:
            self.leave()
            self._world = world
            self.comm.point_to(self.rank, world.size, self._connect)
            if not world.threads:
                torchrun.set_environment(dict(world.environments[self.rank]))
        self._present = tuple(present)
        self._torch_before = self._count_torch()
        if self.traffic is not None:
            self.traffic.reset()

    def leave(self) -> None:
        """End the group, freeing peers that wait in it."""
        world, communicator = self._world, self._communicator
        self._world = self._communicator = None
        if world is not None:
            # A rank that was killed before the group had formed has left it.
            for folder in world.meeting.folders_of(self.rank, world.id):
                shutil.rmtree(folder, ignore_errors=True)
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
        return (*steps, self._count_torch())

    @property
    def traffic(self) -> Traffic | None:
        """What the rank's communicators count; None before the first of them is connected."""
        return None if self._communicator is None else self._communicator.transport.traffic

    @property
    def torch_operations(self) -> int:
        """Collectives that torch's default group has begun in this cell."""
        count = self._count_torch()
        return count - self._torch_before if count >= self._torch_before else count  # less: it is another group

    def _count_torch(self) -> int:
        in_process = self._world is None or self._world.threads
        return 0 if in_process else torchrun.operations()

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
        return BACKENDS[world.backend].make(self.rank, world.size, world.meeting, world.id)
