"""A communicator of some ranks of a world, in whatever way the world's ranks are connected.

All its operations are messages over the world's transport, under a context of their own. So it needs no connections,
and ends exactly when its world does: whoever frees a rank that waits for a message frees it here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paibook.comms.communicator import Array, Communicator, CommunicatorError
from paibook.comms.division import Divisible, part_classes
from paibook.comms.messages import Message, pack, pack_items, unpack, unpack_item
from paibook.comms.operators import Operator

_NOTHING = np.empty(0, np.uint8)


class Subgroup(Communicator):
    """Some of another communicator's ranks.

    Args:
        parent: The other one.
        ranks: Its ranks that belong here, in the order they have here; this process's is among them.
        context: The same on all of them, and on no other communicator's.
        name: For people.
    """

    def __init__(self, parent: Divisible, ranks: Sequence[int], context: int, name: str = "") -> None:
        self.members = [parent.members[rank] for rank in ranks]
        self.rank = ranks.index(parent.rank)
        self.size = len(ranks)
        self.context = context
        self.name = name
        self.transport = parent.transport
        self._parent = parent

    @property
    def steps(self) -> tuple[int, int, int]:
        return 0, self.transport.sent, self.transport.received

    def abort(self) -> None:
        self._parent.abort()

    def Free(self) -> None:
        self.transport = _Freed()  # type: ignore[assignment]

    # Trees and rings of messages

    def Barrier(self) -> None:
        distance = 1
        while distance < self.size:
            self._pass(_NOTHING, (self.rank + distance) % self.size)
            self._passed((self.rank - distance) % self.size)
            distance *= 2

    def bcast(self, obj: Any, root: int = 0) -> Any:
        self._check_rank("root", root)
        message = self._spread(pack(obj, self.transport.token) if self.rank == root else None, root)
        return obj if self.rank == root else unpack(message, self.transport.token)

    def gather(self, sendobj: Any, root: int = 0) -> list[Any] | None:
        self._check_rank("root", root)
        mine = pack(sendobj, self.transport.token)
        if self.rank != root:
            self._pass(mine, root)
            return None
        return [self._unpacked(mine if rank == root else self._passed(rank)) for rank in range(self.size)]

    def allgather(self, sendobj: Any) -> list[Any]:
        messages = [_NOTHING] * self.size
        messages[self.rank] = pack(sendobj, self.transport.token)
        right, left = (self.rank + 1) % self.size, (self.rank - 1) % self.size
        for step in range(self.size - 1):
            self._pass(messages[(self.rank - step) % self.size], right)
            messages[(self.rank - step - 1) % self.size] = self._passed(left)
        return [self._unpacked(message) for message in messages]

    def _scatter(self, items: Sequence[Any] | ValueError | None, root: int) -> Any:
        if self.rank != root:
            return unpack_item(self._passed(root), self.transport.token)
        row = pack_items(items, self.size, self.transport.token)
        for rank in self._others():
            self._pass(row[rank], rank)
        return unpack_item(row[root], self.transport.token)

    def _alltoall(self, items: Sequence[Any] | ValueError) -> list[Any]:
        row = pack_items(items, self.size, self.transport.token)
        for step in range(1, self.size):
            to = (self.rank + step) % self.size
            self._pass(row[to], to)
        messages = [row[rank] if rank == self.rank else self._passed(rank) for rank in range(self.size)]
        return [unpack_item(message, self.transport.token) for message in messages]

    def _bcast_buffer(self, array: Array, root: int) -> None:
        message = self._spread(array.view(np.uint8) if self.rank == root else None, root)
        if message.size != array.nbytes:
            raise ValueError(f"Bcast: rank {root} gave {message.size} bytes for a buffer of {array.nbytes}")
        if self.rank != root:
            array.view(np.uint8)[:] = message

    def _reduce_buffer(self, array: Array, op: Operator, root: int) -> None:
        self._reduce_by_messages(array, op, root)

    def _allreduce_buffer(self, array: Array, op: Operator) -> None:
        self._allreduce_by_messages(array, op)

    def _gather_buffer(self, part: Array, whole: Array | None, root: int) -> None:
        if whole is None:
            self._pass(part, root)
            return
        for rank, row in enumerate(whole.reshape(self.size, -1)):
            if rank == root:
                row[:] = part
            else:
                self._passed_into(row, rank)

    def _allgather_buffer(self, part: Array, whole: Array) -> None:
        self.Allgatherv(part, whole)

    def _scatter_buffer(self, whole: Array | None, part: Array, root: int) -> None:
        if whole is None:
            self._passed_into(part, root)
            return
        for rank, row in enumerate(whole.reshape(self.size, -1)):
            if rank == root:
                part[:] = row
            else:
                self._pass(row, rank)

    def _alltoall_buffer(self, parts: Array, whole: Array) -> None:
        self.Alltoallv(parts, whole)

    def _spread(self, message: Message | None, root: int) -> Message:
        """The root's message, on every rank, along a binomial tree."""
        place = (self.rank - root) % self.size
        bit = 1
        while bit < self.size and not place & bit:
            bit *= 2
        if message is None:
            message = self._passed((place - bit + root) % self.size)
        while bit > 1:
            bit //= 2
            if place + bit < self.size:
                self._pass(message, (place + bit + root) % self.size)
        return message

    def _unpacked(self, message: Message) -> Any:
        return unpack(message, self.transport.token)


class _Freed:
    """Stands where the transport of a freed communicator was."""

    def __getattr__(self, name: str) -> Any:
        raise CommunicatorError("this communicator was freed by Free(); use another, or make it again from comm")


part_classes["part"] = Subgroup
