"""One rank's end of the messages of its world, whatever carries them; every communicator of the rank shares it."""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod

from paibook.comms.inbox import Inbox
from paibook.comms.messages import Message


class Receipt:
    """Set when the receiver of a synchronous send has begun to receive it.

    Args:
        inbox: The sender's, which wakes whoever waits.
    """

    def __init__(self, inbox: Inbox) -> None:
        self.arrived = False
        self._inbox = inbox

    def set(self) -> None:
        """The receive has begun."""
        self.arrived = True
        self._inbox.wake()


class Transport(ABC):
    """Sends letters to the ranks of a world and holds those that came.

    Args:
        rank: Of the world.
        token: What signs pickled objects between these ranks.
        inbox: Where letters for this rank arrive.

    Attributes:
        traffic: What all communicators of the rank count.
    """

    def __init__(self, rank: int, token: bytes, inbox: Inbox) -> None:
        self.rank = rank
        self.token = token
        self.inbox = inbox
        self.traffic = inbox.traffic
        self._counted = threading.Lock()
        self._sent = 0
        self._pending = 0

    @abstractmethod
    def send(self, data: Message, dest: int, tag: int, context: int = 0, receipt: Receipt | None = None) -> None:
        """Send bytes to a rank of the world; they may be changed as soon as this returns.

        Raises:
            CommunicatorError: That rank, or this one, has left.
        """

    @property
    def sent(self) -> int:
        """Messages sent; a collective under way in the background counts as one that has not arrived."""
        return self._sent + self._pending

    @property
    def received(self) -> int:
        """Receives begun. One that waits for its message makes the sums differ, as a message on its way does."""
        return self.inbox.begun

    def count_sent(self, dest: int, size: int) -> None:
        """Count a message of ``size`` bytes."""
        with self._counted:
            self._sent += 1
            self.traffic.count_sent(dest, size)

    def add_pending(self, number: int) -> None:
        """Count background collectives that begin, or, negative, end."""
        with self._counted:
            self._pending += number


def derived_context(context: int, *names: object) -> int:
    """The context of a communicator made from another's: the same on every rank, different for every other one.

    64 bits of BLAKE2, so that ranks need no common counter.
    """
    text = repr((context, *names)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") or 1
