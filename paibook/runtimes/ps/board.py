"""A server's clock board: workers' clocks, who waits for whom, and the one decision to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from paibook.comms.wire import ChannelClosed
from paibook.runtimes.ps.consistency import Consistency, VectorClock, answer_tick, may_read, to_apply
from paibook.runtimes.ps.coordinator import Until
from paibook.runtimes.ps.holdups import HOLD_SECONDS, Holdup, find
from paibook.runtimes.ps.watched import WatchedMeans

_NOTHING: Mapping[str, float] = {}


class ClockBoard:
    """Applies the pure decisions of ``consistency``; every method is for any thread.

    Args:
        consistency: What a pull may miss.
        world_size: Workers.
        apply: Makes the buffered pushes of one clock visible; called with the board locked.
        until: The stop condition; on server 0 alone.
        report: Called, with the board locked, with who holds up whom when a worker has waited for ``HOLD_SECONDS``.
    """

    def __init__(
        self,
        consistency: Consistency,
        world_size: int,
        apply: Callable[[int], None],
        until: Until | None = None,
        report: Callable[[Holdup], None] = lambda holdup: None,
    ) -> None:
        self._consistency = consistency
        self._apply = apply
        self._until = until
        self._report = report
        self._waiting: dict[int, int] = {}  # rank to clock
        self._moved = [time.monotonic()] * world_size
        self._changed = threading.Condition()
        self._means = WatchedMeans(() if until is None else until.names)
        self._began: float | None = None
        self._closed = False
        self.vector = VectorClock.start(world_size)
        self.reason: str | None = None

    def begin(self) -> None:
        """A worker has joined: ``seconds`` count from the first."""
        with self._changed:
            self._began = time.monotonic() if self._began is None else self._began

    def wait_to_read(self, rank: int, clock: int) -> int:
        """Block until worker ``rank``, which is in ``clock``, may be answered.

        Returns:
            Clocks that every worker has finished by now.

        Raises:
            ChannelClosed: The board was closed meanwhile.
        """
        with self._changed:
            self._wait(lambda: may_read(self._consistency, self.vector, clock), rank, clock)
            return self.vector.slowest

    def tick(self, rank: int, metrics: Mapping[str, float] = _NOTHING) -> None:
        """A worker has finished its clock, and logged ``metrics`` in it.

        Under BSP they count when the last worker has finished that clock: one decision, on one clock's values.
        """
        with self._changed:
            self._means.observe(rank, metrics)
            self._moved[rank] = time.monotonic()
            self._move(self.vector.tick(rank))

    def goes_on(self, rank: int, clock: int) -> bool:
        """Block until worker ``rank``, which has come to ``clock``, may be told whether training goes on."""
        with self._changed:
            self._wait(lambda: answer_tick(self._consistency, self.vector, clock), rank, clock)
            return self.reason is None

    def retire(self, rank: int, metrics: Mapping[str, float] = _NOTHING) -> None:
        """A worker's ``train`` has returned; it logged ``metrics`` since its last clock."""
        with self._changed:
            self._means.observe(rank, metrics)
            if rank not in self.vector.retired:
                self._move(self.vector.retire(rank))

    def close(self) -> None:
        """Free everybody who waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _move(self, vector: VectorClock) -> None:
        before, self.vector = self.vector, vector
        for clock in to_apply(self._consistency, before, vector):
            self._apply(clock)
        if vector.slowest > before.slowest or not self._consistency.buffers:
            self._decide()
        self._changed.notify_all()

    def _decide(self) -> None:
        if self._until is None or self.reason is not None or self.vector.finished:
            return
        clock = self.vector.slowest
        seconds = 0.0 if self._began is None else time.monotonic() - self._began
        values = {**self._means.values(), "epoch": clock, "clock": clock, "seconds": seconds}
        if self._until.holds(values):
            self.reason = self._until.describe(values)

    def _wait(self, condition: Callable[[], bool], rank: int, clock: int) -> None:
        if not condition():
            self._waiting[rank] = clock
            try:
                while not self._changed.wait_for(lambda: self._closed or condition(), HOLD_SECONDS):
                    holdup = find(self.vector, self._waiting, self._moved, time.monotonic())
                    if holdup is not None:
                        self._report(holdup)
            finally:
                del self._waiting[rank]
        if self._closed:
            raise ChannelClosed("the server has ended")
