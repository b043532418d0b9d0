"""A communicator for ranks that are MPI processes: collectives by MPI itself, point-to-point by a mailbox.

The ranks are some or all processes of one MPI world, such as ipyparallel engines that ``mpiexec`` has started. Every
collective is one of MPI's non-blocking ones, asked again and again whether it has ended: MPI's blocking calls do not
let Ctrl-C through.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mpi4py import MPI

from paibook.comms.communicator import Array, Communicator, CommunicatorError
from paibook.comms.mailbox import Mailbox
from paibook.comms.messages import Message, pack, pack_items, unpack, unpack_item
from paibook.comms.operators import BAND, BOR, BXOR, LAND, LOR, MAX, MIN, PROD, SUM, Operator
from paibook.comms.rendezvous import Meeting
from paibook.comms.traffic import bytes_of
from paibook.comms.transport import derived_context
from paibook.comms.waiting import wait_until

SPINS = 200

_END_TAG = 1  # of a message that ends the group
_NOTHING = np.empty(0, np.uint8)
_OPERATORS = {
    SUM: MPI.SUM,
    PROD: MPI.PROD,
    MIN: MPI.MIN,
    MAX: MPI.MAX,
    BAND: MPI.BAND,
    BOR: MPI.BOR,
    BXOR: MPI.BXOR,
    LAND: MPI.MIN,
    LOR: MPI.MAX,
}

# What MPI may still read and write for operations that an interrupt has ended.
_abandoned: list[Any] = []


class MpiCommunicator(Communicator):
    """A group of MPI processes. Making one waits for all its ranks.

    Args:
        rank, size: This rank's number, and how many there are.
        meeting: Its ``places`` say which process of the MPI world each rank is.
        name: Sets this group apart from earlier ones of the same processes.

    Raises:
        CommunicatorError: The ranks are not of one MPI world.
    """

    def __init__(self, rank: int, size: int, meeting: Meeting, name: str) -> None:
        self.rank = rank
        self.size = size
        self._token = meeting.token
        self._begun = 0
        self._left = False  # an interrupt has ended an operation
        self._aborted = False
        self.members = range(size)
        self._group = _joined(meeting.places, rank, name)
        self.transport = self._mailbox = Mailbox(
            rank, meeting.token, meeting.bind_host(rank), lambda peer: self._addresses[peer]
        )
        try:
            self._addresses = [(host, port) for host, port in self.allgather(self._mailbox.address)]
        except BaseException:
            self._mailbox.close()
            raise

    @property
    def steps(self) -> tuple[int, int, int]:
        begun = -1 - self.rank if self._left or self._aborted else self._begun
        return begun, self._mailbox.sent, self._mailbox.received

    def abort(self) -> None:
        if self._aborted:
            return
        self._aborted = True
        for peer in range(self.size):
            if peer != self.rank:
                _abandoned.append(self._group.Isend([_NOTHING, MPI.BYTE], peer, _END_TAG))
        self._mailbox.close()

    # Buffers

    def Barrier(self) -> None:
        self._run("Barrier", 0, lambda group: group.Ibarrier())

    def _bcast_buffer(self, array: Array, root: int) -> None:
        self._run("Bcast", array.nbytes, lambda group: group.Ibcast(_bytes(array), root))

    def _allreduce_buffer(self, array: Array, op: Operator) -> None:
        if not _known(array, op):
            self._allreduce_by_messages(array, op)
            return
        if self.size == 1:
            return  # also LAND and LOR leave a lone rank's values as they are
        values = _reducible(array, op)
        self._run("Allreduce", values.nbytes, lambda group: group.Iallreduce(MPI.IN_PLACE, values, _OPERATORS[op]))
        if values is not array:
            array[:] = values

    def _reduce_buffer(self, array: Array, op: Operator, root: int) -> None:
        if not _known(array, op):
            self._reduce_by_messages(array, op, root)
            return
        if self.size == 1:
            return
        values = _reducible(array, op)
        mine, result = (MPI.IN_PLACE, values) if self.rank == root else (values, None)
        self._run("Reduce", values.nbytes, lambda group: group.Ireduce(mine, result, _OPERATORS[op], root))
        if values is not array:
            array[:] = values

    def _allgather_buffer(self, part: Array, whole: Array) -> None:
        source = part.copy()  # it may be a part of the whole
        self._run("Allgather", bytes_of(part, whole), lambda group: group.Iallgather(_bytes(source), _bytes(whole)))

    def _gather_buffer(self, part: Array, whole: Array | None, root: int) -> None:
        source, target = part.copy(), None if whole is None else _bytes(whole)
        self._run("Gather", bytes_of(part, whole), lambda group: group.Igather(_bytes(source), target, root))

    def _scatter_buffer(self, whole: Array | None, part: Array, root: int) -> None:
        source, target = None if whole is None else _bytes(whole.copy()), np.empty_like(part)
        self._run("Scatter", bytes_of(part, whole), lambda group: group.Iscatter(source, _bytes(target), root))
        part[:] = target

    def _alltoall_buffer(self, parts: Array, whole: Array) -> None:
        source = parts.copy()
        self._run("Alltoall", bytes_of(parts, whole), lambda group: group.Ialltoall(_bytes(source), _bytes(whole)))

    # Objects: their lengths, then their bytes

    def bcast(self, obj: Any, root: int = 0) -> Any:
        self._check_rank("root", root)
        message = pack(obj, self._token) if self.rank == root else _NOTHING
        length = np.array([message.size])
        self._bcast_buffer(length, root)
        if self.rank != root:
            message = np.empty(int(length[0]), np.uint8)
        self._bcast_buffer(message, root)
        return obj if self.rank == root else unpack(message, self._token)

    def allgather(self, sendobj: Any) -> list[Any]:
        mine = pack(sendobj, self._token)
        lengths = self._lengths(mine.size)
        whole = np.empty(sum(lengths), np.uint8)
        self._run(
            "allgather", bytes_of(mine, whole), lambda group: group.Iallgatherv(_bytes(mine), _parts(whole, lengths))
        )
        return [unpack(message, self._token) for message in _apart(whole, lengths)]

    def gather(self, sendobj: Any, root: int = 0) -> list[Any] | None:
        self._check_rank("root", root)
        mine = pack(sendobj, self._token)
        lengths = self._lengths(mine.size)
        whole = np.empty(sum(lengths) if self.rank == root else 0, np.uint8)
        target = _parts(whole, lengths) if self.rank == root else None
        self._run("gather", bytes_of(mine, whole), lambda group: group.Igatherv(_bytes(mine), target, root))
        if self.rank != root:
            return None
        return [unpack(message, self._token) for message in _apart(whole, lengths)]

    def _scatter(self, items: Sequence[Any] | ValueError | None, root: int) -> Any:
        row = pack_items(items, self.size, self._token) if self.rank == root else []
        lengths, mine = np.array([message.size for message in row], np.int64), np.empty(1, np.int64)
        self._scatter_buffer(lengths if row else None, mine, root)
        message = np.empty(int(mine[0]), np.uint8)
        source = _parts(np.concatenate(row), lengths) if row else None
        self._run(
            "scatter", message.size + int(lengths.sum()), lambda group: group.Iscatterv(source, _bytes(message), root)
        )
        return unpack_item(message, self._token)

    def _alltoall(self, items: Sequence[Any] | ValueError) -> list[Any]:
        row = pack_items(items, self.size, self._token)
        lengths, theirs = np.array([message.size for message in row], np.int64), np.empty(self.size, np.int64)
        self._alltoall_buffer(lengths, theirs)
        whole = np.empty(int(theirs.sum()), np.uint8)
        source = _parts(np.concatenate(row), lengths)
        self._run(
            "alltoall", int(lengths.sum()) + whole.size, lambda group: group.Ialltoallv(source, _parts(whole, theirs))
        )
        return [unpack_item(message, self._token) for message in _apart(whole, theirs)]

    def _lengths(self, mine: int) -> list[int]:
        lengths = np.empty(self.size, np.int64)
        self._allgather_buffer(np.array([mine], np.int64), lengths)
        return [int(length) for length in lengths]

    def _run(self, operation: str, size: int, start: Callable[[MPI.Intracomm], MPI.Request]) -> None:
        """Let MPI do an operation on buffers of ``size`` bytes."""
        if self._left:
            self.abort()  # the others could never match again
        if self._aborted:
            raise CommunicatorError(f"{operation}: this group of ranks was ended")
        self._begun += 1
        request: MPI.Request | None = None
        began = time.monotonic()
        try:
            request = start(self._group)
            _wait(request, self._check)
        except MPI.Exception as error:
            raise CommunicatorError(f"{operation}: {error}") from error
        except BaseException as error:
            self._left = True
            _abandoned.append((request, start))
            if isinstance(error, CommunicatorError):
                raise CommunicatorError(f"{operation}: {error}") from error
            raise
        finally:
            self.transport.traffic.add_library(size, time.monotonic() - began)

    def _check(self) -> None:
        if self._aborted or self._group.Iprobe(MPI.ANY_SOURCE, _END_TAG):
            raise CommunicatorError("this group of ranks was ended")


def _joined(places: Sequence[int], rank: int, name: str) -> MPI.Intracomm:
    """The group of these processes of the MPI world, in this order."""
    world = MPI.COMM_WORLD
    if len(set(places)) < len(places) or max(places) >= world.size or places[rank] != world.rank:
        raise CommunicatorError(f"the ranks are not processes of one MPI world: their MPI ranks are {list(places)}")
    # Making the group cannot be interrupted, so all ranks say first that they are there.
    tag = derived_context(0, name) % int(world.Get_attr(MPI.TAG_UB))
    peers = [place for place in places if place != world.rank]
    received = np.empty(len(peers), np.uint8)
    arrivals = [world.Irecv([received[i : i + 1], MPI.BYTE], peer, tag) for i, peer in enumerate(peers)]
    _abandoned.extend(world.Isend([np.ones(1, np.uint8), MPI.BYTE], peer, tag) for peer in peers)
    try:
        for arrival in arrivals:
            _wait(arrival)
    except BaseException:
        for arrival in arrivals:
            arrival.Cancel()
        _abandoned.append((arrivals, received))
        raise
    group = world.Create_group(world.Get_group().Incl(list(places)), tag)
    group.Set_errhandler(MPI.ERRORS_RETURN)
    return group


def _wait(request: MPI.Request, check: Callable[[], None] = lambda: None) -> None:
    for _ in range(SPINS):
        if request.Test():
            return
    wait_until(request.Test, check)


def _known(array: Array, op: Operator) -> bool:
    """Whether MPI has this operator for this type."""
    kind = array.dtype.kind
    if op in (LAND, LOR):
        return kind in "biufc"
    if op in (BAND, BOR, BXOR):
        return kind in "iu"
    if op in (MIN, MAX):
        return kind in "iu" or array.dtype in (np.float32, np.float64)
    return op in (SUM, PROD) and (kind in "iu" or array.dtype in (np.float32, np.float64, np.complex64, np.complex128))


def _reducible(array: Array, op: Operator) -> Array:
    return (array != 0).astype(np.uint8) if op in (LAND, LOR) else array


def _bytes(array: Array) -> list[Any]:
    return [array.view(np.uint8), MPI.BYTE]


def _parts(whole: Message, lengths: Sequence[int] | Array) -> list[Any]:
    return [whole, [int(length) for length in lengths], None, MPI.BYTE]


def _apart(whole: Message, lengths: Sequence[int] | Array) -> list[Message]:
    ends = np.cumsum(lengths)
    # Copies, for arrays in them are views, and want to lie at even addresses.
    return [whole[end - length : end].copy() for end, length in zip(ends, lengths, strict=True)]
