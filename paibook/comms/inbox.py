"""Messages that have arrived and receives that wait, matched by communicator, source and tag in the order of both."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from paibook.comms.errors import CommunicatorError
from paibook.comms.messages import Message
from paibook.comms.operators import ANY_SOURCE, ANY_TAG
from paibook.comms.traffic import Traffic

MAX_TAG = 2**31 - 1
INTERNAL_TAG = MAX_TAG + 1  # parts of collectives; never given to a receiver that takes any tag
WAKE_SECONDS = 0.05  # a wait is cut into slices, so that Ctrl-C is seen wherever the thread's lock does not show it


@dataclass(frozen=True, eq=False)
class Letter:
    """One message: who sent it, under which tag, and its bytes.

    Attributes:
        source: The sender's rank in the world.
        context: Of the communicator; communicators never see each other's letters.
        acknowledge: Called when a receive has got it; the sender waits for that.
    """

    source: int
    tag: int
    data: Message
    context: int = 0
    acknowledge: Callable[[], None] | None = None


@dataclass(eq=False)
class Receive:
    """A receive that has begun: it gets the first letter that matches it and no earlier receive."""

    source: int
    tag: int
    context: int
    letter: Letter | None = None

    def wants(self, letter: Letter) -> bool:
        """Whether this letter may be the one."""
        if letter.context != self.context or self.source not in (ANY_SOURCE, letter.source):
            return False
        return letter.tag <= MAX_TAG if self.tag == ANY_TAG else self.tag == letter.tag


class Inbox:
    """Letters in order of arrival, which keeps each sender's order. Safe from any thread.

    Attributes:
        begun: How many receives have begun and were not withdrawn.
        traffic: Where waits are counted.
    """

    def __init__(self) -> None:
        self._letters: list[Letter] = []
        self._receives: list[Receive] = []
        self._changed = threading.Condition()
        self._lost: dict[int, str] = {}
        self.begun = 0
        self.traffic = Traffic()

    def put(self, letter: Letter) -> None:
        """Deliver a letter."""
        with self._changed:
            receive = next((receive for receive in self._receives if receive.wants(letter)), None)
            if receive is None:
                self._letters.append(letter)
            else:
                self._receives.remove(receive)
                receive.letter = letter
            self._changed.notify_all()
        if receive is not None:
            _acknowledge(letter)

    def lose(self, source: int, why: str) -> None:
        """Say that nothing more comes from ``source`` (or from anyone: ``ANY_SOURCE``)."""
        with self._changed:
            self._lost[source] = why
            self._changed.notify_all()

    def begin(self, source: int, tag: int, context: int = 0) -> Receive:
        """Begin a receive; its letter comes now or later."""
        receive = Receive(source, tag, context)
        with self._changed:
            self.begun += 1
            letter = self._first(receive)
            if letter is None:
                self._receives.append(receive)
            else:
                self._letters.remove(letter)
                receive.letter = letter
        if letter is not None:
            _acknowledge(letter)
        return receive

    def finish(self, receive: Receive, operation: str = "recv") -> Letter:
        """Wait for a receive's letter.

        Raises:
            CommunicatorError: It cannot come any more.
        """
        self.wait_until(lambda: receive.letter is not None, receive.source, operation)
        assert receive.letter is not None
        return receive.letter

    def withdraw(self, receive: Receive) -> bool:
        """Give a receive up; False when it has got its letter already."""
        with self._changed:
            if receive not in self._receives:
                return False
            self._receives.remove(receive)
            self.begun -= 1
            return True

    def take(self, source: int, tag: int, context: int = 0) -> Letter:
        """Wait for the first letter that matches, and remove it.

        Raises:
            CommunicatorError: It cannot come any more.
        """
        receive = self.begin(source, tag, context)
        try:
            return self.finish(receive)
        except BaseException:
            self.withdraw(receive)
            raise

    def find(self, source: int, tag: int, context: int = 0) -> Letter | None:
        """The first letter that matches, left where it is; None when there is none now."""
        with self._changed:
            return self._first(Receive(source, tag, context))

    def wait_until(self, ready: Callable[[], bool], source: int, operation: str) -> None:
        """Wait for something that ``source`` does.

        Raises:
            CommunicatorError: It has left.
        """
        with self._changed:
            if ready():
                return
            with self.traffic.waiting(source):
                while not ready():
                    self.check(source, operation)
                    self._changed.wait(WAKE_SECONDS)

    def check(self, source: int, operation: str) -> None:
        """Say that nothing can come from ``source``, if so.

        Raises:
            CommunicatorError: So it is.
        """
        why = self._lost.get(ANY_SOURCE) or self._lost.get(source)
        if why is not None:
            raise CommunicatorError(f"{operation}: {why}")

    def wake(self) -> None:
        """Let ``wait_until`` look again."""
        with self._changed:
            self._changed.notify_all()

    def _first(self, receive: Receive) -> Letter | None:
        return next((letter for letter in self._letters if receive.wants(letter)), None)


def _acknowledge(letter: Letter) -> None:
    # Not while the inbox is locked: in one process this locks the sender's, and two ranks may do it to each other.
    if letter.acknowledge is not None:
        letter.acknowledge()
