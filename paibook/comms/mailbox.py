"""Point-to-point messages between processes: every rank listens, and senders connect on their first message.

Connections are authenticated both ways (see ``paibook.comms.wire``). A thread per connection files what arrives in
the inbox, so a sender never waits for ``recv`` to be called: two ranks may send to each other first and receive later.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import numpy as np

from paibook.comms import wire
from paibook.comms.communicator import CommunicatorError
from paibook.comms.inbox import Inbox, Letter
from paibook.comms.messages import Message
from paibook.comms.operators import ANY_SOURCE

Address = tuple[str, int]


class Mailbox:
    """One rank's letters.

    Args:
        rank: Its number, stamped on what it sends.
        token: The group's secret, of 32 bytes.
        host: Address to listen on.
        lookup: Gives the address of a rank's mailbox.
    """

    def __init__(self, rank: int, token: bytes, host: str, lookup: Callable[[int], Address]) -> None:
        self.rank = rank
        self._token = token
        self._lookup = lookup
        self._inbox = Inbox()
        self._outgoing: dict[int, wire.Channel] = {}
        self._incoming: list[wire.Channel] = []
        self._listener = wire.listen(host)
        self.address: Address = self._listener.getsockname()[:2]
        self._closed = False
        self.sent = 0
        threading.Thread(target=self._accept, name=f"paibook-mailbox-{rank}", daemon=True).start()

    def send(self, data: Message, dest: int, tag: int) -> None:
        """Send bytes to a rank.

        Raises:
            CommunicatorError: That rank, or this mailbox, is gone.
        """
        self.sent += 1
        if dest == self.rank:
            self._inbox.put(Letter(self.rank, tag, data.copy()))
            return
        try:
            if dest not in self._outgoing:
                self._outgoing[dest] = wire.connect(self._lookup(dest), self._token)
            self._outgoing[dest].send(wire.Header(op=0, table=self.rank, sequence=tag), data)
        except (wire.ChannelClosed, wire.HandshakeError) as error:
            raise CommunicatorError(f"send to rank {dest}: {error}") from error

    @property
    def received(self) -> int:
        """How many letters have been taken out."""
        return self._inbox.taken

    def receive(self, source: int, tag: int) -> Letter:
        """Wait for a letter from ``source`` under ``tag``."""
        return self._inbox.take(source, tag)

    def close(self) -> None:
        """End every connection and free whoever waits. Safe from any thread, and to repeat."""
        self._closed = True
        self._inbox.lose(ANY_SOURCE, "the group of ranks was ended")
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
        except OSError:
            pass  # closed before
        self._listener.close()
        for channel in [*self._outgoing.values(), *self._incoming]:
            channel.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        try:
            channel = wire.accept(connection, self._token)
        except (wire.ChannelClosed, wire.HandshakeError):
            return  # a stranger, or a peer that left while greeting: nothing was read from it
        self._incoming.append(channel)
        source = ANY_SOURCE
        try:
            while True:
                header = channel.receive()
                source = header.table
                self._inbox.put(Letter(source, header.sequence, channel.receive_array(header.length, np.uint8)))
        except wire.ChannelClosed:
            if source != ANY_SOURCE:
                self._inbox.lose(source, f"rank {source} left the group")
        finally:
            channel.close()
