"""A communicator for ranks that share a host: collectives in shared memory, point-to-point by a mailbox.

It needs no torch. Everything reaches the peers through memory that only these processes have mapped (see
``one_host``), and a collective costs as many turns in it as its data has chunks (see ``segment``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from paibook.comms import shared_collectives as collectives
from paibook.comms.addresses import Addresses
from paibook.comms.buffer_specs import one_part
from paibook.comms.buffers import same_layout
from paibook.comms.communicator import Array, Communicator, CommunicatorError
from paibook.comms.mailbox import Mailbox
from paibook.comms.messages import Message, pack, pack_items, unpack, unpack_item
from paibook.comms.one_host import Link
from paibook.comms.operators import SUM, InPlace, Operator
from paibook.comms.rendezvous import Meeting
from paibook.comms.segment import Bytes, Disagreement, Segment, heading

_NOTHING = np.empty(0, np.uint8)
_KNOWN_CALLS = 1000


class SharedMemoryCommunicator(Communicator):
    """A group of ranks of one host; see ``segment.supported``.

    Args:
        rank, size: This rank's number, and how many there are.
        meeting: Where the ranks find each other; all name the same one, of one host.
        name: Sets this group apart from earlier ones of the same meeting.
        names: What messages call the ranks; by default their numbers.

    Raises:
        CommunicatorError: The group could not be formed.
    """

    def __init__(self, rank: int, size: int, meeting: Meeting, name: str, names: Sequence[int] | None = None) -> None:
        self.rank = rank
        self.size = size
        self._token = meeting.token
        self._begun = 0
        self._left = False  # an interrupt has ended an operation
        self._aborted = False
        self._texts: dict[Any, bytes] = {}
        self._names = names
        self.members = range(size)
        folder = meeting.folder_of(name)
        self.transport = self._mailbox = Mailbox(
            rank, meeting.token, meeting.bind_host(rank), lambda rank: self._addresses.of(rank)
        )
        try:
            self._addresses = Addresses(folder, rank, self._mailbox.address)
        except BaseException:
            self._mailbox.close()
            raise
        self._link = Link(folder, rank, size)
        self._segment: Segment | None = None

    @property
    def steps(self) -> tuple[int, int, int]:
        # The ranks of a group that was ended, or left by one in the middle, are never in step.
        begun = -1 - self.rank if self._left or self._ended else self._begun
        return begun, self._mailbox.sent, self._mailbox.received

    def abort(self) -> None:
        self._aborted = True
        if self._segment is not None:
            self._segment.end()
        self._mailbox.close()
        self._link.close()
        self._addresses.close()

    @property
    def _ended(self) -> str:
        """Why the group was ended; empty while it was not."""
        if self._segment is not None:
            return self._segment.ended
        return "this group of ranks was ended" if self._aborted else ""

    def _connect(self) -> Segment:
        # Not before a collective: messages between two ranks need no third.
        self._addresses.connecting()
        self._link.connect(self._mailbox.address, Segment.bytes_for(self.size))
        try:
            segment = Segment(self._link.descriptor, self.rank, self.size, self._names, self.transport.traffic)
        finally:
            os.close(self._link.descriptor)
        self._addresses.learn([(host, port) for host, port in self._link.greetings])
        self._addresses.clear()
        self._link.watch(segment.end)
        self._segment = segment
        if self._aborted:  # meanwhile, by another thread
            self.abort()
        return segment

    # Buffers

    def Barrier(self) -> None:
        self._run("Barrier", Segment.begin, self._text("Barrier"))

    def Reduce(self, sendbuf: Any, recvbuf: Any, op: Operator = SUM, root: int = 0) -> None:
        self._check_rank("root", root)
        self._check_operator(op)
        if self.rank == root:
            source, target = _from_and_to(sendbuf, recvbuf)
            self._fold("Reduce", op, source, target, root)
        else:
            self._fold("Reduce", op, one_part(sendbuf, "sendbuf"), None, root)

    def Allreduce(self, sendbuf: Any, recvbuf: Any, op: Operator = SUM) -> None:
        self._check_operator(op)
        self._fold("Allreduce", op, *_from_and_to(sendbuf, recvbuf))

    def _reduce_buffer(self, array: Array, op: Operator, root: int) -> None:
        self._fold("Reduce", op, array, array if self.rank == root else None, root)

    def _allreduce_buffer(self, array: Array, op: Operator) -> None:
        self._fold("Allreduce", op, array, array)

    def _fold(self, name: str, op: Operator, source: Array, target: Array | None, root: int | None = None) -> None:
        collectives.check_reducible(op, source.dtype)
        if self.size > 1:
            text = self._text(name, source, root, op)
            with np.errstate(all="ignore"):  # an overflow must not warn on the one rank that reduced the element
                self._run(name, collectives.fold, text, op, source, target)
        elif target is not None and target is not source:
            target[:] = source

    def _bcast_buffer(self, array: Array, root: int) -> None:
        memory = _bytes(array)
        self._stream(
            "Bcast", array, root, memory if self.rank == root else None, {} if self.rank == root else {root: memory}
        )

    def _gather_buffer(self, part: Array, whole: Array | None, root: int) -> None:
        self._stream("Gather", part, root, *self._gathered(part, whole))

    def _allgather_buffer(self, part: Array, whole: Array) -> None:
        self._stream("Allgather", part, None, *self._gathered(part, whole))

    def _scatter_buffer(self, whole: Array | None, part: Array, root: int) -> None:
        row: list[Bytes] = []
        if whole is not None:
            own = self._split(whole)[self.rank]
            row = self._split(whole if _same(own, part) else _apart(whole, part))
        column = [_bytes(part) if rank == root else _NOTHING for rank in range(self.size)]
        self._deal("Scatter", self._text("Scatter", part, root), row, column, part.nbytes)

    def _alltoall_buffer(self, parts: Array, whole: Array) -> None:
        row = self._split(_apart(parts, whole))
        self._deal("Alltoall", self._text("Alltoall", whole), row, self._split(whole), whole.nbytes // self.size)

    def _gathered(self, part: Array, whole: Array | None) -> tuple[Bytes, dict[int, Bytes]]:
        if whole is None:
            return _bytes(part), {}
        rows = self._split(whole)
        own = rows[self.rank]
        return _bytes(part if _same(own, part) else _apart(part, whole)), dict(enumerate(rows))

    def _split(self, whole: Array) -> list[Bytes]:
        return list(_bytes(whole).reshape(self.size, -1))

    def _stream(self, name: str, array: Array, root: int | None, mine: Bytes | None, targets: dict[int, Bytes]) -> None:
        text = self._text(name, array, root)
        self._run(name, collectives.stream, text, mine, lambda rank, _: targets.get(rank))

    def _deal(self, name: str, text: bytes, row: Sequence[Bytes], column: Sequence[Bytes], longest: int) -> None:
        self._run(name, collectives.deal, text, row, column, longest)

    # Objects

    def bcast(self, obj: Any, root: int = 0) -> Any:
        self._check_rank("root", root)
        if self.rank == root:
            self._messages("bcast", pack(obj, self._token), [], root)
            return obj
        return unpack(self._messages("bcast", None, [root], root)[0], self._token)

    def gather(self, sendobj: Any, root: int = 0) -> list[Any] | None:
        self._check_rank("root", root)
        wanted = range(self.size) if self.rank == root else []
        messages = self._messages("gather", pack(sendobj, self._token), wanted, root)
        return [unpack(message, self._token) for message in messages] if self.rank == root else None

    def allgather(self, sendobj: Any) -> list[Any]:
        messages = self._messages("allgather", pack(sendobj, self._token), range(self.size))
        return [unpack(message, self._token) for message in messages]

    def _scatter(self, items: Sequence[Any] | ValueError | None, root: int) -> Any:
        row = pack_items(items, self.size, self._token) if self.rank == root else None
        return self._dealt("scatter", row, [root], root)[0]

    def _alltoall(self, items: Sequence[Any] | ValueError) -> list[Any]:
        return self._dealt("alltoall", pack_items(items, self.size, self._token), range(self.size))

    def _messages(
        self, name: str, mine: Message | None, wanted: Sequence[int], root: int | None = None
    ) -> list[Message]:
        opened: dict[int, Message] = {}

        def open_(rank: int, length: int) -> Message | None:
            if rank in wanted:
                opened[rank] = np.empty(length, np.uint8)
            return opened.get(rank)

        self._run(name, collectives.stream, self._text(name, None, root), mine, open_)
        return [opened[rank] for rank in wanted]

    def _dealt(self, name: str, row: list[Message] | None, wanted: Sequence[int], root: int | None = None) -> list[Any]:
        """Tell the lengths, then deal the messages; only the ranks ``wanted`` have any."""
        lengths = None if row is None else np.array([message.size for message in row], np.int64).view(np.uint8)
        tables = self._messages(name, lengths, wanted, root)
        from_each = dict(zip(wanted, (table.view(np.int64) for table in tables), strict=True))
        sizes = [int(from_each[rank][self.rank]) if rank in from_each else 0 for rank in range(self.size)]
        column = [np.empty(size, np.uint8) for size in sizes]
        longest = max(int(table.max()) for table in from_each.values())
        self._deal(name, self._text(f"{name} of items", None, root), row or [], column, longest)
        return [unpack_item(column[rank], self._token) for rank in wanted]

    def _text(
        self, name: str, array: Array | None = None, root: int | None = None, op: Operator | None = None
    ) -> bytes:
        key = (name, root, op) if array is None else (name, root, op, array.dtype, array.size)
        text = self._texts.get(key)
        if text is None:
            if len(self._texts) >= _KNOWN_CALLS:
                self._texts.clear()
            text = self._texts[key] = heading(_in_words(name, array, root, op))
        return text

    def _run(self, name: str, operation: Callable[..., None], *arguments: Any) -> None:
        if self._left:
            self.abort()  # the others could never match again
        ended = self._ended
        if ended:
            raise CommunicatorError(f"{name}: {ended}")
        self._begun += 1
        try:
            operation(self._segment or self._connect(), *arguments)
        except Disagreement:
            raise  # all ranks are at the same place
        except CommunicatorError as error:
            if self._segment is None:
                self.abort()  # there will be no group
            raise CommunicatorError(f"{name}: {error}") from error
        except BaseException:
            # Not told to the others at once: Stop interrupts all ranks, and one that was freed just before would get
            # its own interrupt when it is doing something else.
            self._left = True
            raise


def _in_words(name: str, array: Array | None, root: int | None, op: Operator | None) -> str:
    words = [name]
    if array is not None:
        words.append(f"of {array.size} {array.dtype}")
    if op is not None:
        words.append(f"by {op.name}")
    if root is not None:
        words.append(f"with root {root}")
    return " ".join(words)


def _from_and_to(sendbuf: Any, recvbuf: Any) -> tuple[Array, Array]:
    target = one_part(recvbuf, "recvbuf", writable=True)
    if isinstance(sendbuf, InPlace):
        return target, target
    source = one_part(sendbuf, "sendbuf")
    same_layout(source, target, ("sendbuf", "recvbuf"))
    return source if _same(source, target) else _apart(source, target), target


def _bytes(array: Array) -> Bytes:
    return array.view(np.uint8)


def _apart(source: Array, target: Array) -> Array:
    """The source, or a copy where writing to the target could change what is still to be read of it."""
    return source.copy() if np.may_share_memory(source, target) else source


def _same(left: Array, right: Array) -> bool:
    return left.nbytes == right.nbytes and left.__array_interface__["data"] == right.__array_interface__["data"]
