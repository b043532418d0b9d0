"""A communicator for ranks that are threads of one process: what the inline cluster uses, and the tests' oracle."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from paibook.comms.communicator import Array, Communicator, CommunicatorError
from paibook.comms.inbox import WAKE_SECONDS, Inbox, Letter
from paibook.comms.messages import Message, pack, unpack
from paibook.comms.operators import ANY_SOURCE, Operator, fold
from paibook.comms.transport import Receipt, Transport

_TOKEN = b""  # messages never leave the process
_groups: weakref.WeakValueDictionary[str, ThreadGroup] = weakref.WeakValueDictionary()
_groups_lock = threading.Lock()


class ThreadGroup:
    """What the ranks of one group share: a table with a seat per rank, and an inbox each.

    Args:
        size: How many ranks.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.inboxes = [Inbox() for _ in range(size)]
        self._seats: list[Any] = [None] * size
        self._changed = threading.Condition()
        self._arrived = 0
        self._turn = 0
        self._aborted = False

    @classmethod
    def named(cls, name: str, size: int) -> ThreadGroup:
        """The process's group of that name, made by the first rank that asks."""
        with _groups_lock:
            group = _groups.get(name)
            if group is None:
                group = _groups[name] = cls(size)
            return group

    @staticmethod
    def abort_named(name: str) -> None:
        """Abort the group of that name, if there is one."""
        with _groups_lock:
            group = _groups.get(name)
        if group is not None:
            group.abort()

    def exchange(self, rank: int, value: Any) -> list[Any]:
        """Put a value on the table and return everybody's, in rank order, once all are there.

        The caller calls ``wait`` when it has read them: only then may a rank put its next value or change memory that
        it lent to the table.
        """
        self._seats[rank] = value
        self.wait()
        return list(self._seats)

    def wait(self) -> None:
        """Wait until every rank is here.

        Raises:
            CommunicatorError: The group was aborted.
        """
        with self._changed:
            self._check()
            turn = self._turn
            self._arrived += 1
            if self._arrived == self.size:
                self._arrived = 0
                self._turn += 1
                self._changed.notify_all()
            try:
                while self._turn == turn:
                    self._changed.wait(WAKE_SECONDS)
                    self._check(turn)
            except BaseException:
                self._aborted = True  # this rank was counted and leaves: the others could never match again
                self._changed.notify_all()
                raise

    def abort(self) -> None:
        """Free every rank that waits, and refuse later operations."""
        with self._changed:
            self._aborted = True
            self._changed.notify_all()
        for inbox in self.inboxes:
            inbox.lose(ANY_SOURCE, "the group of ranks was ended")

    def _check(self, turn: int | None = None) -> None:
        if self._aborted and (turn is None or self._turn == turn):
            raise CommunicatorError("the group of ranks was ended: a peer failed or the cell was stopped")


class ThreadTransport(Transport):
    """Puts letters into the other threads' inboxes."""

    def __init__(self, group: ThreadGroup, rank: int) -> None:
        super().__init__(rank, _TOKEN, group.inboxes[rank])
        self._group = group

    def send(self, data: Message, dest: int, tag: int, context: int = 0, receipt: Receipt | None = None) -> None:
        self.count_sent(dest, data.nbytes)
        self.inbox.check(self.rank, f"send to rank {dest}")  # fails only when the group has ended
        acknowledge = receipt.set if receipt else None
        self._group.inboxes[dest].put(Letter(self.rank, tag, data.copy(), context, acknowledge))


class ThreadCommunicator(Communicator):
    """One thread's view of a ``ThreadGroup``.

    Objects are pickled on the way, as between processes, so that ranks never share one by accident.
    """

    def __init__(self, group: ThreadGroup, rank: int) -> None:
        self.group = group
        self.rank = rank
        self.size = group.size
        self.members = range(group.size)
        self.transport = ThreadTransport(group, rank)
        self._begun = 0

    @property
    def steps(self) -> tuple[int, int, int]:
        return self._begun, self.transport.sent, self.transport.received

    def abort(self) -> None:
        self.group.abort()

    def Barrier(self) -> None:
        self._share(None)

    def bcast(self, obj: Any, root: int = 0) -> Any:
        self._check_rank("root", root)
        message = pack(obj, _TOKEN) if self.rank == root else None
        received = self._share(message)[root]
        return obj if self.rank == root else _open(received)

    def gather(self, sendobj: Any, root: int = 0) -> list[Any] | None:
        self._check_rank("root", root)
        messages = self._share(pack(sendobj, _TOKEN))
        return [_open(m) for m in messages] if self.rank == root else None

    def allgather(self, sendobj: Any) -> list[Any]:
        return [_open(message) for message in self._share(pack(sendobj, _TOKEN))]

    def _scatter(self, items: Sequence[Any] | ValueError | None, root: int) -> Any:
        dealt = self._share(_pack_items(items))[root]
        if isinstance(dealt, ValueError):
            raise dealt
        return _open(dealt[self.rank])

    def _alltoall(self, items: Sequence[Any] | ValueError) -> list[Any]:
        dealt = self._share(_pack_items(items))
        for row in dealt:
            if isinstance(row, ValueError):
                raise row
        return [_open(row[self.rank]) for row in dealt]

    def _bcast_buffer(self, array: Array, root: int) -> None:
        source = self._exchange(array)[root]
        if self.rank != root:
            _copy(source, array)
        self.group.wait()

    def _reduce_buffer(self, array: Array, op: Operator, root: int) -> None:
        parts = self._exchange(array)
        total = fold(op, parts) if self.rank == root else None
        self.group.wait()
        if total is not None:
            _copy(total, array)

    def _allreduce_buffer(self, array: Array, op: Operator) -> None:
        total = fold(op, self._exchange(array))
        self.group.wait()
        _copy(total, array)

    def _gather_buffer(self, part: Array, whole: Array | None, root: int) -> None:
        parts = self._exchange(part)
        if whole is not None:
            _copy(np.concatenate(parts), whole)
        self.group.wait()

    def _allgather_buffer(self, part: Array, whole: Array) -> None:
        joined = np.concatenate(self._exchange(part))
        self.group.wait()
        _copy(joined, whole)

    def _scatter_buffer(self, whole: Array | None, part: Array, root: int) -> None:
        source = self._exchange(whole)[root]
        length = source.size // self.size
        _copy(source[self.rank * length : (self.rank + 1) * length], part)
        self.group.wait()

    def _alltoall_buffer(self, parts: Array, whole: Array) -> None:
        rows = self._exchange(parts)
        length = parts.size // self.size
        joined = np.concatenate([row[self.rank * length : (self.rank + 1) * length] for row in rows])
        self.group.wait()
        _copy(joined, whole)

    def _exchange(self, value: Any) -> list[Any]:
        self._begun += 1
        traffic, began = self.transport.traffic, time.monotonic()
        traffic.written += _lent(value)
        try:
            return self.group.exchange(self.rank, value)
        finally:
            traffic.add_wait(time.monotonic() - began)

    def _share(self, value: Any) -> list[Any]:
        values = self._exchange(value)
        self.group.wait()
        return values


def _open(message: Message) -> Any:
    return unpack(message.copy(), _TOKEN)  # a copy for each receiver: its arrays are views of the message


def _pack_items(items: Sequence[Any] | ValueError | None) -> list[Message] | ValueError | None:
    if items is None or isinstance(items, ValueError):
        return items
    return [pack(item, _TOKEN) for item in items]


def _lent(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return value.nbytes
    return sum(map(_lent, value)) if isinstance(value, list) else 0


def _copy(source: Array, target: Array) -> None:
    if source.nbytes != target.nbytes:
        raise ValueError(f"ranks gave buffers of different sizes: {source.nbytes} and {target.nbytes} bytes")
    target.view(np.uint8)[:] = source.view(np.uint8)
