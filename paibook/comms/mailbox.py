"""Point-to-point messages between processes: every rank listens, and senders connect on their first message.

Connections are authenticated both ways (see ``paibook.comms.wire``). A thread per connection files what arrives in
the inbox, so a sender never waits for ``recv`` to be called: two ranks may send to each other first and receive later.
"""

from __future__ import annotations

import itertools
import queue
import socket
import threading
from collections import defaultdict
from collections.abc import Callable
from functools import partial

import numpy as np

from paibook.comms import wire
from paibook.comms.errors import CommunicatorError
from paibook.comms.inbox import Inbox, Letter
from paibook.comms.messages import Message
from paibook.comms.operators import ANY_SOURCE
from paibook.comms.transport import Receipt, Transport

Address = tuple[str, int]
LETTER, ACKNOWLEDGEMENT = range(2)
_NOTHING = np.empty(0, np.uint8)


class Mailbox(Transport):
    """One rank's letters.

    Args:
        rank: Its number, stamped on what it sends.
        token: The group's secret, of 32 bytes.
        host: Address to listen on.
        lookup: Gives the address of a rank's mailbox.
    """

    def __init__(self, rank: int, token: bytes, host: str, lookup: Callable[[int], Address]) -> None:
        super().__init__(rank, token, Inbox())
        self._lookup = lookup
        self._outgoing: dict[int, wire.Channel] = {}
        self._locks: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)  # one thread at a time on each
        self._receipts: dict[int, Receipt] = {}
        self._numbers = itertools.count(1)
        self._acknowledgements: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()
        self._acknowledges = False
        self._incoming: list[wire.Channel] = []
        self._listener = wire.listen(host)
        self.address: Address = self._listener.getsockname()[:2]
        self._closed = False
        threading.Thread(target=self._accept, name=f"paibook-mailbox-{rank}", daemon=True).start()

    def send(self, data: Message, dest: int, tag: int, context: int = 0, receipt: Receipt | None = None) -> None:
        """Send bytes to a rank.

        Raises:
            CommunicatorError: That rank, or this mailbox, is gone.
        """
        self.count_sent(dest, data.nbytes)
        self.inbox.check(self.rank, f"send to rank {dest}")  # fails only when this mailbox is closed
        if dest == self.rank:
            self.inbox.put(Letter(self.rank, tag, data.copy(), context, receipt.set if receipt else None))
            return
        number = 0
        if receipt is not None:
            number = next(self._numbers)
            self._receipts[number] = receipt
        try:
            self._write(dest, wire.Header(LETTER, 0, self.rank, tag, 0, number, context), data)
        except (wire.ChannelClosed, wire.HandshakeError) as error:
            raise CommunicatorError(f"send to rank {dest}: {error}") from error

    def receive(self, source: int, tag: int, context: int = 0) -> Letter:
        """Wait for a letter from ``source`` under ``tag``."""
        return self.inbox.take(source, tag, context)

    def close(self) -> None:
        """End every connection and free whoever waits. Safe from any thread, and to repeat."""
        self._closed = True
        self.inbox.lose(ANY_SOURCE, "the group of ranks was ended")
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
        except OSError:
            pass  # closed before
        self._listener.close()
        for channel in [*self._outgoing.values(), *self._incoming]:
            channel.close()
        self._acknowledgements.put(None)

    def _write(self, dest: int, header: wire.Header, data: Message) -> None:
        with self._locks[dest]:
            if dest not in self._outgoing:
                self._outgoing[dest] = wire.connect(self._lookup(dest), self.token)
            self._outgoing[dest].send(header, data)

    def _acknowledge(self, dest: int, number: int) -> None:
        # By a thread of its own: the threads that read must never wait for a connection to take something.
        self._acknowledgements.put((dest, number))
        with self._counted:
            started, self._acknowledges = self._acknowledges, True
        if not started:
            threading.Thread(target=self._send_acknowledgements, daemon=True).start()

    def _send_acknowledgements(self) -> None:
        while (item := self._acknowledgements.get()) is not None:
            dest, number = item
            try:
                self._write(dest, wire.Header(ACKNOWLEDGEMENT, table=self.rank, sequence=number), _NOTHING)
            except (wire.ChannelClosed, wire.HandshakeError, CommunicatorError):
                pass  # the sender has left and waits no more

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        try:
            channel = wire.accept(connection, self.token)
        except (wire.ChannelClosed, wire.HandshakeError):
            return  # a stranger, or a peer that left while greeting: nothing was read from it
        self._incoming.append(channel)
        source = ANY_SOURCE
        try:
            while True:
                header = channel.receive()
                source = header.table
                if header.op == ACKNOWLEDGEMENT:
                    self._receipts.pop(header.sequence).set()
                    continue
                data = channel.receive_array(header.length, np.uint8)
                acknowledge = partial(self._acknowledge, source, header.clock) if header.clock else None
                self.inbox.put(Letter(source, header.sequence, data, header.key_set, acknowledge))
        except wire.ChannelClosed:
            if source != ANY_SOURCE:
                self.inbox.lose(source, f"rank {source} left the group")
        finally:
            channel.close()
