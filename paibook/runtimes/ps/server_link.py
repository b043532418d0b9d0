"""One connection of a worker to a server: what it has asked and not heard yet, found again by number."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paibook.comms.wire import Channel, ChannelClosed, Header
from paibook.runtimes.ps.key_sets import SentKeys
from paibook.runtimes.ps.messages import MASK, Op
from paibook.runtimes.ps.views import Address

MAX_DUE = 32 << 10  # bytes that surely fit a connection's buffers while nobody reads

Buffers = tuple[NDArray[Any] | bytes, ...]


@dataclass
class Request:
    """Something asked of a server, to be asked again where that dies.

    Attributes:
        header: As sent, but for its number.
        buffers: The payload.
        partition: Whose primary is asked; None where every server is.
        into: Where the answer's payload goes.
        answer: The answer's header, once it is here; of what died with its server, a mere OK.
    """

    header: Header
    buffers: Buffers = ()
    partition: int | None = None
    into: NDArray[Any] | None = None
    answer: Header | None = None


class ServerLink:
    """One connection to a server and the requests that it has not answered."""

    def __init__(self, rank: int, address: Address, channel: Channel) -> None:
        self.rank = rank
        self.address = address
        self.channel = channel
        self.asked: deque[tuple[int, Request]] = deque()
        self.broken = False
        self.begun = False  # whether it has been told at which clock this worker begins
        self._number = 0
        self._keys = SentKeys()
        self._ahead = 0  # bytes sent while answers with payload were due

    @property
    def due(self) -> int:
        """Bytes of payload that open requests bring."""
        return sum(request.into.nbytes for _, request in self.asked if request.into is not None)

    def blocks(self, size: int) -> bool:
        """Whether ``size`` bytes more might not be read, since the server cannot send what nobody reads here."""
        return self.due > MAX_DUE and self._ahead + size > MAX_DUE

    def send(self, header: Header, *buffers: NDArray[Any] | bytes) -> None:
        """Send a frame that is not answered; its keys only where the server does not know them.

        Raises:
            ChannelClosed: The server is gone.
        """
        header, buffers = self._keys.shorten(header, buffers)
        self._ahead = self._ahead + size_of(buffers) if self.due else 0
        try:
            self.channel.send(header, *buffers)
        except ChannelClosed:
            self.broken = True
            raise

    def receive(self) -> Header:
        """The next frame's header.

        Raises:
            ChannelClosed: The server is gone.
        """
        try:
            return self.channel.receive()
        except ChannelClosed:
            self.broken = True
            raise

    def ask(self, request: Request) -> None:
        """Send a request.

        Raises:
            ChannelClosed: The server is gone.
        """
        self._number += 1
        number = self._number & MASK
        try:
            self.send(request.header._replace(sequence=number), *request.buffers)
        finally:
            self.asked.append((number, request))  # where the server is gone, another is asked

    def take_answer(self, header: Header) -> Request:
        """The request that an answer's header belongs to; its payload has been read then, but for an ERROR's."""
        # Not always the first: what a server's partitions have to confirm to each other is answered as they do.
        request = next((asked for number, asked in self.asked if number == header.sequence), None)
        if request is None:
            self.broken = True
            raise ChannelClosed("a server answered what it was not asked")
        self.asked = deque(entry for entry in self.asked if entry[1] is not request)
        if header.op == Op.OK and header.length:
            if request.into is None or request.into.nbytes != header.length:
                self.broken = True
                raise ChannelClosed("a server answered at an unexpected length")
            try:
                self.channel.receive_into(request.into)
            except ChannelClosed:
                self.broken = True
                self.asked.appendleft((header.sequence, request))
                raise
        request.answer = header
        return request


def size_of(buffers: Buffers) -> int:
    """Bytes of a payload."""
    return sum(b.nbytes if isinstance(b, np.ndarray) else len(b) for b in buffers)
