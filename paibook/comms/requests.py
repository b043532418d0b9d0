"""Requests: operations that go on while the program does something else, waited for or tested later."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from paibook.comms.inbox import Inbox, Letter, Receive
from paibook.comms.operators import ANY_SOURCE, ANY_TAG, UNDEFINED
from paibook.comms.status import Status
from paibook.comms.transport import Receipt

POLL_SECONDS = 0.0005


class Work(ABC):
    """What a request stands for while it is under way."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether ``finish`` returns, or raises, at once."""

    @abstractmethod
    def finish(self, status: Status) -> Any:
        """Wait for the end; returns the object received, if any, and fills in the status."""

    def cancel(self) -> bool:
        """Give it up, if that is still possible."""
        return False


class Request:
    """A ticket for an operation under way; once waited for, it is done with and stands for nothing."""

    def __init__(self, work: Work | None = None) -> None:
        self._work = work
        self._cancelled = False

    # One request

    def wait(self, status: Status | None = None) -> Any:
        """Wait for the end; returns the object received, None for anything else."""
        work, self._work = self._work, None
        filled = Status() if status is None else status
        filled.fill(ANY_SOURCE, ANY_TAG, 0, self._cancelled)
        if work is None:
            return None
        try:
            return work.finish(filled)
        except KeyboardInterrupt:
            self._work = work
            raise

    def test(self, status: Status | None = None) -> tuple[bool, Any]:
        """Whether it has ended and, if so, what ``wait`` gives; never waits."""
        if self._work is not None and not self._work.ready():
            return False, None
        return True, self.wait(status)

    def cancel(self) -> None:
        """Give up a receive that has got no message yet; anything else goes on. Waiting for it then ends at once."""
        if self._work is not None and self._work.cancel():
            self._work, self._cancelled = None, True

    def Wait(self, status: Status | None = None) -> bool:
        """As ``wait``, for buffers."""
        self.wait(status)
        return True

    def Test(self, status: Status | None = None) -> bool:
        """As ``test``, for buffers."""
        return self.test(status)[0]

    def Cancel(self) -> None:
        """As ``cancel``."""
        self.cancel()

    def Free(self) -> None:
        """Forget the request; its operation goes on."""
        self._work = None

    def __bool__(self) -> bool:
        return self._work is not None

    def __eq__(self, other: object) -> bool:
        # Every request that is done with equals REQUEST_NULL.
        return self is other or (isinstance(other, Request) and self._work is None and other._work is None)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<request: {'under way' if self else 'done'}>"

    # Several

    @classmethod
    def waitall(cls, requests: Sequence[Request], statuses: list[Status] | None = None) -> list[Any]:
        """Wait for every request; their results in order."""
        return [request.wait(status) for request, status in zip(requests, _one_each(statuses, requests), strict=True)]

    @classmethod
    def waitany(cls, requests: Sequence[Request], status: Status | None = None) -> tuple[int, Any]:
        """Wait for any request; its index and result. ``UNDEFINED`` when all are done with."""
        while True:
            index, flag, result = cls.testany(requests, status)
            if flag:
                return index, result
            time.sleep(POLL_SECONDS)

    @classmethod
    def waitsome(
        cls, requests: Sequence[Request], statuses: list[Status] | None = None
    ) -> tuple[list[int] | None, list[Any] | None]:
        """Wait for at least one request; the indices and results of those that have ended, None when all are done."""
        while True:
            indices, results = cls.testsome(requests, statuses)
            if indices is None or indices:
                return indices, results
            time.sleep(POLL_SECONDS)

    @classmethod
    def testall(
        cls, requests: Sequence[Request], statuses: list[Status] | None = None
    ) -> tuple[bool, list[Any] | None]:
        """Whether every request has ended and, if so, their results."""
        if not all(request._work is None or request._work.ready() for request in requests):
            return False, None
        return True, cls.waitall(requests, statuses)

    @classmethod
    def testany(cls, requests: Sequence[Request], status: Status | None = None) -> tuple[int, bool, Any]:
        """The first request that has ended: index, True, result; or ``UNDEFINED``, and True when all are done with."""
        for index, request in enumerate(requests):
            if request._work is not None and request._work.ready():
                return index, True, request.wait(status)
        return UNDEFINED, not any(requests), None

    @classmethod
    def testsome(
        cls, requests: Sequence[Request], statuses: list[Status] | None = None
    ) -> tuple[list[int] | None, list[Any] | None]:
        """Indices and results of the requests that have ended; None when all are done with."""
        if not any(requests):
            return None, None
        indices = [index for index, request in enumerate(requests) if request._work and request._work.ready()]
        ended = [requests[index] for index in indices]
        return indices, cls.waitall(ended, statuses)

    @classmethod
    def Waitall(cls, requests: Sequence[Request], statuses: list[Status] | None = None) -> bool:
        """As ``waitall``, for buffers."""
        cls.waitall(requests, statuses)
        return True

    @classmethod
    def Waitany(cls, requests: Sequence[Request], status: Status | None = None) -> int:
        """As ``waitany``: the index."""
        return cls.waitany(requests, status)[0]

    @classmethod
    def Waitsome(cls, requests: Sequence[Request], statuses: list[Status] | None = None) -> list[int] | None:
        """As ``waitsome``: the indices."""
        return cls.waitsome(requests, statuses)[0]

    @classmethod
    def Testall(cls, requests: Sequence[Request], statuses: list[Status] | None = None) -> bool:
        """As ``testall``: whether all have ended."""
        return cls.testall(requests, statuses)[0]

    @classmethod
    def Testany(cls, requests: Sequence[Request], status: Status | None = None) -> tuple[int, bool]:
        """As ``testany``, without the result."""
        return cls.testany(requests, status)[:2]

    @classmethod
    def Testsome(cls, requests: Sequence[Request], statuses: list[Status] | None = None) -> list[int] | None:
        """As ``testsome``: the indices."""
        return cls.testsome(requests, statuses)[0]


REQUEST_NULL = Request()


class Receiving(Work):
    """A receive.

    Args:
        inbox: Where its letter comes.
        receive: What waits there.
        open_letter: Turns the letter into the result and fills in the status.
    """

    def __init__(self, inbox: Inbox, receive: Receive, open_letter: Callable[[Letter, Status], Any]) -> None:
        self._inbox, self._receive, self._open = inbox, receive, open_letter

    def ready(self) -> bool:
        if self._receive.letter is None:
            self._inbox.check(self._receive.source, "irecv")
        return self._receive.letter is not None

    def finish(self, status: Status) -> Any:
        return self._open(self._inbox.finish(self._receive, "irecv"), status)

    def cancel(self) -> bool:
        return self._inbox.withdraw(self._receive)


class Sending(Work):
    """A send that waits until the receiver has begun to receive; without a receipt it has ended already."""

    def __init__(self, inbox: Inbox, dest: int, receipt: Receipt | None = None) -> None:
        self._inbox, self._dest, self._receipt = inbox, dest, receipt

    def ready(self) -> bool:
        if self._receipt is None or self._receipt.arrived:
            return True
        self._inbox.check(self._dest, "issend")
        return False

    def finish(self, status: Status) -> None:
        receipt = self._receipt
        if receipt is not None:
            self._inbox.wait_until(lambda: receipt.arrived, self._dest, "ssend")


class Nothing(Work):
    """A receive from ``PROC_NULL``."""

    def __init__(self, source: int) -> None:
        self._source = source

    def ready(self) -> bool:
        return True

    def finish(self, status: Status) -> None:
        status.fill(self._source, ANY_TAG, 0)


def _one_each(statuses: list[Status] | None, requests: Sequence[Request]) -> list[Status]:
    if statuses is None:
        return [Status() for _ in requests]
    statuses += [Status() for _ in range(len(requests) - len(statuses))]
    return statuses[: len(requests)]
