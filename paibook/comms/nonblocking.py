"""Collectives that go on in the background, in the order in which they were begun.

A communicator's background collectives have messages of their own, so they may be begun and waited for around its
other operations; all ranks begin them in the same order. One thread per communicator works them off.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from paibook.comms.inbox import WAKE_SECONDS
from paibook.comms.operators import SUM, Operator
from paibook.comms.requests import Request, Work
from paibook.comms.status import Status
from paibook.comms.transport import Transport


class Background:
    """Calls worked off one after another by a thread that lives as long as there are any.

    Args:
        transport: Told how many are under way.
        communicator: What the calls are made on; used by nobody else.
    """

    def __init__(self, transport: Transport, communicator: Any) -> None:
        self._transport = transport
        self._communicator = communicator
        self._waiting: deque[_Call] = deque()
        self._lock = threading.Lock()
        self._running = False

    def begin(self, operation: str, *arguments: Any) -> Request:
        """Call a method of the communicator when those before have ended."""
        call = _Call(lambda: getattr(self._communicator, operation)(*arguments))
        self._transport.add_pending(1)
        with self._lock:
            self._waiting.append(call)
            start, self._running = not self._running, True
        if start:
            threading.Thread(target=self._work, name="paibook-collectives", daemon=True).start()
        return Request(call)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running = False
                    return
                call = self._waiting.popleft()
            if call.run():  # after a failure the ranks are out of step, and stay counted as such
                self._transport.add_pending(-1)


class _Call(Work):
    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._error: BaseException | None = None
        self._ended = threading.Event()

    def run(self) -> bool:
        """Make the call; whether it succeeded."""
        try:
            self._function()
        except BaseException as error:  # raised by whoever waits
            self._error = error
        self._function = _forgotten  # holds the buffers
        self._ended.set()
        return self._error is None

    def ready(self) -> bool:
        return self._ended.is_set()

    def finish(self, status: Status) -> None:
        while not self._ended.wait(WAKE_SECONDS):
            pass  # in slices, for Ctrl-C
        if self._error is not None:
            raise self._error


def _forgotten() -> None:
    raise AssertionError("a call is made once")


class NonBlockingCollectives:
    """Each as its upper-case name without the I, as a request; buffers are left alone until it was waited for."""

    def _in_background(self, operation: str, *arguments: Any) -> Request:
        raise NotImplementedError

    def Ibarrier(self) -> Request:
        """Ends when every rank has begun it."""
        return self._in_background("Barrier")

    def Ibcast(self, buf: Any, root: int = 0) -> Request:
        """Begin ``Bcast``."""
        return self._in_background("Bcast", buf, root)

    def Ireduce(self, sendbuf: Any, recvbuf: Any, op: Operator = SUM, root: int = 0) -> Request:
        """Begin ``Reduce``."""
        return self._in_background("Reduce", sendbuf, recvbuf, op, root)

    def Iallreduce(self, sendbuf: Any, recvbuf: Any, op: Operator = SUM) -> Request:
        """Begin ``Allreduce``."""
        return self._in_background("Allreduce", sendbuf, recvbuf, op)

    def Igather(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> Request:
        """Begin ``Gather``."""
        return self._in_background("Gather", sendbuf, recvbuf, root)

    def Igatherv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> Request:
        """Begin ``Gatherv``."""
        return self._in_background("Gatherv", sendbuf, recvbuf, root)

    def Iallgather(self, sendbuf: Any, recvbuf: Any) -> Request:
        """Begin ``Allgather``."""
        return self._in_background("Allgather", sendbuf, recvbuf)

    def Iallgatherv(self, sendbuf: Any, recvbuf: Any) -> Request:
        """Begin ``Allgatherv``."""
        return self._in_background("Allgatherv", sendbuf, recvbuf)

    def Iscatter(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> Request:
        """Begin ``Scatter``."""
        return self._in_background("Scatter", sendbuf, recvbuf, root)

    def Iscatterv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> Request:
        """Begin ``Scatterv``."""
        return self._in_background("Scatterv", sendbuf, recvbuf, root)

    def Ialltoall(self, sendbuf: Any, recvbuf: Any) -> Request:
        """Begin ``Alltoall``."""
        return self._in_background("Alltoall", sendbuf, recvbuf)

    def Ialltoallv(self, sendbuf: Any, recvbuf: Any) -> Request:
        """Begin ``Alltoallv``."""
        return self._in_background("Alltoallv", sendbuf, recvbuf)

    def Ireduce_scatter(self, sendbuf: Any, recvbuf: Any, recvcounts: Any = None, op: Operator = SUM) -> Request:
        """Begin ``Reduce_scatter``."""
        return self._in_background("Reduce_scatter", sendbuf, recvbuf, recvcounts, op)

    def Ireduce_scatter_block(self, sendbuf: Any, recvbuf: Any, op: Operator = SUM) -> Request:
        """Begin ``Reduce_scatter_block``."""
        return self._in_background("Reduce_scatter_block", sendbuf, recvbuf, op)

    def Iscan(self, sendbuf: Any, recvbuf: Any, op: Operator = SUM) -> Request:
        """Begin ``Scan``."""
        return self._in_background("Scan", sendbuf, recvbuf, op)

    def Iexscan(self, sendbuf: Any, recvbuf: Any, op: Operator = SUM) -> Request:
        """Begin ``Exscan``."""
        return self._in_background("Exscan", sendbuf, recvbuf, op)
