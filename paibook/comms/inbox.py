"""Messages that have arrived and wait to be received, matched by source and tag."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from paibook.comms.communicator import MAX_TAG, CommunicatorError
from paibook.comms.messages import Message
from paibook.comms.operators import ANY_SOURCE, ANY_TAG

INTERNAL_TAG = MAX_TAG + 1  # parts of collectives; never given to a receiver that takes any tag
WAKE_SECONDS = 0.05  # a wait is cut into slices, so that Ctrl-C is seen wherever the thread's lock does not show it


@dataclass(frozen=True, eq=False)
class Letter:
    """One message: who sent it, under which tag, and its bytes."""

    source: int
    tag: int
    data: Message

    def matches(self, source: int, tag: int) -> bool:
        """Whether a receiver that asks for ``source`` and ``tag`` gets this one."""
        wanted = self.tag <= MAX_TAG if tag == ANY_TAG else tag == self.tag
        return wanted and source in (ANY_SOURCE, self.source)


class Inbox:
    """Letters in order of arrival, which keeps each sender's order. Safe from any thread.

    Attributes:
        taken: How many letters have been received.
    """

    def __init__(self) -> None:
        self._letters: deque[Letter] = deque()
        self._changed = threading.Condition()
        self._lost: dict[int, str] = {}
        self.taken = 0

    def put(self, letter: Letter) -> None:
        """Deliver a letter."""
        with self._changed:
            self._letters.append(letter)
            self._changed.notify_all()

    def lose(self, source: int, why: str) -> None:
        """Say that nothing more comes from ``source`` (or from anyone: ``ANY_SOURCE``)."""
        with self._changed:
            self._lost[source] = why
            self._changed.notify_all()

    def take(self, source: int, tag: int) -> Letter:
        """Wait for the first letter that matches, and remove it.

        Raises:
            CommunicatorError: It cannot come any more.
        """
        with self._changed:
            while True:
                for letter in self._letters:
                    if letter.matches(source, tag):
                        self._letters.remove(letter)
                        self.taken += 1
                        return letter
                why = self._lost.get(ANY_SOURCE) or self._lost.get(source)
                if why is not None:
                    raise CommunicatorError(f"recv: {why}")
                self._changed.wait(WAKE_SECONDS)
