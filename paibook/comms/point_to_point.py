"""Messages from one rank to another, of a communicator over its world's transport."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np

from paibook.comms.buffer_specs import one_part
from paibook.comms.inbox import INTERNAL_TAG, MAX_TAG, Letter
from paibook.comms.messages import Message, pack, unpack
from paibook.comms.operators import ANY_SOURCE, ANY_TAG, PROC_NULL, Array
from paibook.comms.requests import Nothing, Receiving, Request, Sending, Work
from paibook.comms.status import Status, describe, describe_null
from paibook.comms.transport import Receipt, Transport
from paibook.errors import RunError


class PointToPoint:
    """``send`` and its relatives. Lower case sends objects, upper case the memory of buffers.

    Sending is buffered: it does not wait for the receiver, except for its memory; ``ssend`` does wait.

    Attributes:
        transport: Carries the messages; None until the communicator is connected.
        context: Sets this communicator's messages apart from those of others.
        members: The world's rank of each rank here.
    """

    rank: int
    size: int
    transport: Transport
    context: int = 0
    members: Sequence[int]

    # Objects

    def send(self, obj: Any, dest: int, tag: int = 0) -> None:
        """Send an object to ``dest``."""
        self._start(self._packed(obj, dest), dest, tag)

    bsend = send

    def ssend(self, obj: Any, dest: int, tag: int = 0) -> None:
        """Send an object and wait until ``dest`` has begun to receive it."""
        self.issend(obj, dest, tag).wait()

    def recv(self, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Any:
        """The next object from ``source`` with ``tag``; in order per sender and tag.

        Args:
            buf: Ignored, as memory is found for every message; a whole number is the source.
            status: Told who sent it, with which tag, and its bytes.
        """
        source, tag = _shifted(buf, source, tag)
        if source == PROC_NULL:
            return describe_null(status)
        letter = self._take(source, tag)
        return self._open(letter, Status() if status is None else status)

    def sendrecv(
        self,
        sendobj: Any,
        dest: int,
        sendtag: int = 0,
        recvbuf: Any = None,
        source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG,
        status: Status | None = None,
    ) -> Any:
        """Send an object to ``dest`` and receive one from ``source``."""
        self._check_source(source)
        self.send(sendobj, dest, sendtag)
        return self.recv(None, source, recvtag, status)

    def isend(self, obj: Any, dest: int, tag: int = 0) -> Request:
        """As ``send``, as a request that has ended."""
        self.send(obj, dest, tag)
        return Request(Sending(self.transport.inbox, 0))

    ibsend = isend

    def issend(self, obj: Any, dest: int, tag: int = 0) -> Request:
        """As ``ssend``, as a request."""
        return self._start_synchronous(self._packed(obj, dest), dest, tag)

    def irecv(self, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> Request:
        """Begin to receive an object; the request's ``wait`` returns it. Earlier receives are served first."""
        source, tag = _shifted(buf, source, tag)
        return self._begin(source, tag, self._open)

    def probe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> bool:
        """Wait until a message can be received, and leave it there; ``status`` describes it."""
        if source == PROC_NULL:
            describe_null(status)
            return True
        origin, inbox = self._origin(source), self.transport.inbox
        inbox.wait_until(lambda: inbox.find(origin, tag, self.context) is not None, origin, "probe")
        return self.iprobe(source, tag, status)

    def iprobe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> bool:
        """Whether a message can be received now; ``status`` describes it."""
        if source == PROC_NULL:
            describe_null(status)
            return True
        origin = self._origin(source)
        letter = self.transport.inbox.find(origin, tag, self.context)
        if letter is None:
            self.transport.inbox.check(origin, "iprobe")
            return False
        describe(status, self.members.index(letter.source), letter.tag, letter.data.nbytes)
        return True

    # Buffers

    def Send(self, buf: Any, dest: int, tag: int = 0) -> None:
        """Send a buffer's memory; the buffer may be changed as soon as this returns."""
        self._start(self._bytes(buf, dest), dest, tag)

    Bsend = Rsend = Send

    def Ssend(self, buf: Any, dest: int, tag: int = 0) -> None:
        """Send a buffer's memory and wait until ``dest`` has begun to receive it."""
        self.Issend(buf, dest, tag).wait()

    def Recv(self, buf: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> None:
        """Receive into ``buf``, which may be larger than the message.

        Raises:
            ValueError: The message has more bytes than ``buf``.
        """
        self.Irecv(buf, source, tag).wait(status)

    def Sendrecv(
        self,
        sendbuf: Any,
        dest: int,
        sendtag: int = 0,
        recvbuf: Any = None,
        source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG,
        status: Status | None = None,
    ) -> None:
        """Send one buffer to ``dest`` and receive another from ``source``."""
        self._check_source(source)
        if source != PROC_NULL:
            one_part(recvbuf, "recvbuf", writable=True)
        self.Send(sendbuf, dest, sendtag)
        self.Recv(recvbuf, source, recvtag, status)

    def Sendrecv_replace(
        self,
        buf: Any,
        dest: int,
        sendtag: int = 0,
        source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG,
        status: Status | None = None,
    ) -> None:
        """Send a buffer to ``dest`` and receive into it from ``source``."""
        self.Sendrecv(buf, dest, sendtag, buf, source, recvtag, status)

    def Isend(self, buf: Any, dest: int, tag: int = 0) -> Request:
        """As ``Send``, as a request that has ended."""
        self.Send(buf, dest, tag)
        return Request(Sending(self.transport.inbox, 0))

    Ibsend = Irsend = Isend

    def Issend(self, buf: Any, dest: int, tag: int = 0) -> Request:
        """As ``Ssend``, as a request."""
        return self._start_synchronous(self._bytes(buf, dest), dest, tag)

    def Irecv(self, buf: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> Request:
        """Begin to receive into ``buf``, which holds the message when the request has been waited for."""
        if source == PROC_NULL:
            return Request(Nothing(PROC_NULL))
        array = one_part(buf, "buf", writable=True).view(np.uint8)

        def fill(letter: Letter, status: Status) -> None:
            self._describe(letter, status)
            if letter.data.size > array.size:
                raise ValueError(f"Recv got a message of {letter.data.size} bytes for a buffer of {array.size}")
            array[: letter.data.size] = letter.data

        return self._begin(source, tag, fill)

    def Probe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> bool:
        """As ``probe``."""
        return self.probe(source, tag, status)

    def Iprobe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> bool:
        """As ``iprobe``."""
        return self.iprobe(source, tag, status)

    # Parts of collectives: no receiver that takes any tag gets them

    def _pass(self, data: Array, dest: int) -> None:
        self.transport.send(data.view(np.uint8), self.members[dest], INTERNAL_TAG, self.context)

    def _passed(self, source: int) -> Message:
        return self.transport.inbox.take(self.members[source], INTERNAL_TAG, self.context).data

    def _passed_into(self, array: Array, source: int) -> None:
        data = self._passed(source)
        if data.size != array.nbytes:
            raise ValueError(f"rank {source} gave {data.size} bytes where rank {self.rank} expects {array.nbytes}")
        array.view(np.uint8)[:] = data

    # Sending and receiving

    def _start(self, data: Message, dest: int, tag: int, receipt: Receipt | None = None) -> None:
        self._check_tag(tag)
        if dest != PROC_NULL:
            self.transport.send(data, self.members[int(dest)], int(tag), self.context, receipt)

    def _start_synchronous(self, data: Message, dest: int, tag: int) -> Request:
        if dest == PROC_NULL:
            self._check_tag(tag)
            return Request(Sending(self.transport.inbox, 0))
        receipt = Receipt(self.transport.inbox)
        self._start(data, dest, tag, receipt)
        return Request(Sending(self.transport.inbox, self.members[int(dest)], receipt))

    def _take(self, source: int, tag: int) -> Letter:
        return self.transport.inbox.take(self._origin(source), tag, self.context)

    def _begin(self, source: int, tag: int, open_letter: Any) -> Request:
        if source == PROC_NULL:
            return Request(Nothing(PROC_NULL))
        inbox = self.transport.inbox
        work: Work = Receiving(inbox, inbox.begin(self._origin(source), tag, self.context), open_letter)
        return Request(work)

    def _open(self, letter: Letter, status: Status) -> Any:
        self._describe(letter, status)
        try:
            return unpack(letter.data, self.transport.token)
        except (RunError, struct.error) as error:
            raise RunError(
                f"recv: the message from rank {status.source} with tag {status.tag} holds no object of these ranks; "
                f"what Send sends is received by Recv ({error})"
            ) from error

    def _describe(self, letter: Letter, status: Status) -> None:
        status.fill(self.members.index(letter.source), letter.tag, letter.data.nbytes)

    def _packed(self, obj: Any, dest: int) -> Message:
        self._check_dest(dest)
        return pack(obj, self.transport.token)

    def _bytes(self, buf: Any, dest: int) -> Message:
        self._check_dest(dest)
        return np.empty(0, np.uint8) if dest == PROC_NULL else one_part(buf, "buf").view(np.uint8)

    def _origin(self, source: int) -> int:
        self._check_source(source)
        return ANY_SOURCE if source == ANY_SOURCE else self.members[int(source)]

    # Checks

    def _check_dest(self, dest: int) -> None:
        if dest != PROC_NULL:
            self._check_rank("dest", dest)

    def _check_source(self, source: int) -> None:
        if source not in (ANY_SOURCE, PROC_NULL):
            self._check_rank("source", source)

    def _check_rank(self, name: str, rank: int) -> None:
        if not isinstance(rank, Integral) or not 0 <= int(rank) < self.size:
            raise ValueError(f"{name} must be a rank from 0 to {self.size - 1}; got {rank!r}")

    def _check_tag(self, tag: int) -> None:
        if not isinstance(tag, Integral) or not 0 <= int(tag) <= MAX_TAG:
            raise ValueError(f"tag must be a whole number from 0 to {MAX_TAG}; got {tag!r}")


def _shifted(buf: Any, source: int, tag: int) -> tuple[int, int]:
    """Source and tag; ``recv(source, tag)`` means the first, though mpi4py has a buffer in front of them."""
    if not isinstance(buf, Integral):
        return source, tag
    return int(buf), source if source != ANY_SOURCE else tag
