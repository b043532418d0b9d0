"""A communicator for ranks on several hosts, many on each: shared memory within a host, gloo between the hosts.

A reduction is done in three steps: within each host, between the first ranks of the hosts, and back (hierarchical
allreduce, as in Horovod and in Jia et al., "Highly Scalable Deep Learning Training System with Mixed-Precision",
arXiv:1807.11205). So the network carries each host's array once, and not each rank's. Broadcasts and barriers go the
same way; gathers, scatters and objects go through gloo among all ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from paibook.comms.communicator import Array, CommunicatorError
from paibook.comms.gloo import TorchCommunicator, known
from paibook.comms.messages import Message
from paibook.comms.operators import Operator
from paibook.comms.rendezvous import Meeting
from paibook.comms.shared_memory import SharedMemoryCommunicator


class _Levels(NamedTuple):
    """The groups one rank is in.

    Attributes:
        host: The ranks of its host.
        leaders: The first rank of each host; None where this is not one.
    """

    host: SharedMemoryCommunicator
    leaders: TorchCommunicator | None

    def abort(self) -> None:
        self.host.abort()
        if self.leaders is not None:
            self.leaders.abort()


class HierarchicalCommunicator(TorchCommunicator):
    """A group of ranks of several hosts; see ``TorchCommunicator`` for the arguments.

    The meeting says who shares a host with whom (``Meeting.folders``).
    """

    _levels: _Levels | None = None
    _left = False  # in the middle of an operation of several steps

    def __init__(self, rank: int, size: int, meeting: Meeting, name: str) -> None:
        super().__init__(rank, size, meeting, name)
        self._meeting, self._name = meeting, name
        hosts = list(dict.fromkeys(meeting.folders))
        self._leaders = [meeting.folders.index(host) for host in hosts]
        self._host_of = [hosts.index(host) for host in meeting.folders]

    @property
    def steps(self) -> tuple[int, int, int]:
        begun, sent, received = super().steps
        return (-1 - self.rank if self._left else begun), sent, received

    def abort(self) -> None:
        super().abort()
        levels = self._levels
        if levels is not None:
            levels.abort()

    def Barrier(self) -> None:
        with self._operation("Barrier") as (host, leaders):
            host.Barrier()
            if leaders is not None:
                leaders.Barrier()
            host.Barrier()

    def _allreduce_buffer(self, array: Array, op: Operator) -> None:
        if not known(array, op):
            super()._allreduce_buffer(array, op)
        elif array.size:
            with self._operation("Allreduce") as (host, leaders):
                host._reduce_buffer(array, op, 0)
                if leaders is not None:
                    leaders._allreduce_buffer(array, op)
                host._bcast_buffer(array, 0)

    def _reduce_buffer(self, array: Array, op: Operator, root: int) -> None:
        if not known(array, op):
            super()._reduce_buffer(array, op, root)
        elif array.size:
            with self._operation("Reduce") as (host, leaders):
                host._reduce_buffer(array, op, 0)
                if leaders is not None:
                    leaders._reduce_buffer(array, op, self._host_of[root])
                if self._host_of[root] == self._host_of[self.rank]:
                    host._bcast_buffer(array, 0)  # the others' arrays are copies

    def _broadcast(self, array: Message, root: int) -> None:
        if not array.size:
            return
        with self._operation("Bcast") as (host, leaders):
            near = self._host_of[root] == self._host_of[self.rank]
            if near:
                host._bcast_buffer(array, self._beside().index(root))
            if leaders is not None:
                leaders._broadcast(array, self._host_of[root])
            if not near:
                host._bcast_buffer(array, 0)

    @contextmanager
    def _operation(self, name: str) -> Iterator[_Levels]:
        if self._left:
            self.abort()  # the others could never match again
        if self._aborted:
            raise CommunicatorError(f"{name}: this group of ranks was ended")
        self._begun += 1
        try:
            if self._levels is None:
                self._levels = self._new_levels()
                if self._aborted:  # meanwhile, by another thread
                    self.abort()
            yield self._levels
        except ValueError:
            raise  # the ranks of a host called different things: all of them are at the same place
        except BaseException:
            self._left = True
            raise

    def _new_levels(self) -> _Levels:
        meeting, ranks = self._meeting.beside(self.rank)
        host = SharedMemoryCommunicator(ranks.index(self.rank), len(ranks), meeting, self._name, ranks)
        host.transport.traffic = self.transport.traffic
        if self.rank not in self._leaders:
            return _Levels(host, None)
        among = self._meeting.among(self._leaders)
        place = self._leaders.index(self.rank)
        leaders = TorchCommunicator(place, len(self._leaders), among, f"{self._name}.leaders")
        leaders.transport.traffic = self.transport.traffic
        return _Levels(host, leaders)

    def _beside(self) -> list[int]:
        mine = self._host_of[self.rank]
        return [rank for rank, host in enumerate(self._host_of) if host == mine]
