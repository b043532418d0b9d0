"""A clock board: workers' clocks, who waits for whom, and the one decision to stop."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from paibook.comms.wire import ChannelClosed
from paibook.runtimes.ps.consistency import Consistency, VectorClock, answer_tick, may_read
from paibook.runtimes.ps.holdups import HOLD_SECONDS, Holdup, find
from paibook.runtimes.ps.stopping import Status, StopRule
from paibook.runtimes.ps.watched import WatchedMeans

# A worker may have gone on without a coordinator that died, and wait for one that waits for it at the next.
BARRIER_SECONDS = 1.0
_NOTHING: Mapping[str, float] = {}


class ClockBoard:
    """Applies the pure decisions of ``consistency``; every method is for any thread.

    Every server has one, and the coordinator another, which also decides. What it is told is idempotent: a worker says
    to which clock it has come, again to whoever is new.

    Args:
        consistency: What a pull may miss.
        world_size: Workers.
        moved: Called with the slowest worker's clock when it has changed, with the board locked.
        rule: When to stop; the coordinator's alone. Asked with the board unlocked.
        watched: The metrics that it looks at; None for all.
        clock: At which the run begins.
        decided: Called with the reason to stop before anybody is told, with the board locked.
        report: Called, with the board locked, with who holds up whom when a worker has waited for ``HOLD_SECONDS``.
    """

    def __init__(
        self,
        consistency: Consistency,
        world_size: int,
        moved: Callable[[int], None],
        rule: StopRule | None = None,
        watched: Iterable[str] | None = (),
        clock: int = 0,
        decided: Callable[[str], None] = lambda reason: None,
        report: Callable[[Holdup], None] = lambda holdup: None,
    ) -> None:
        self._consistency = consistency
        self._moved = moved
        self._rule = rule
        self._decided = decided
        self._report = report
        self._waiting: dict[int, int] = {}  # rank to clock
        self._last_moves = [time.monotonic()] * world_size
        self._means = WatchedMeans(watched)
        self._undecided: deque[Status] = deque()  # what the rule is still to be asked of, the first perhaps by now
        self._deciding = False
        self._closed = False
        self._incarnations = [-1] * world_size
        self.changed = threading.Condition(threading.RLock())
        self.began: float | None = None  # seconds since the epoch
        self.vector = VectorClock.start(world_size, clock)
        self.reason: str | None = None

    def join(self, rank: int, incarnation: int) -> dict[str, Any]:
        """A worker's process has come; what an earlier process of its rank still says counts no more.

        Returns:
            Where its rank stands here: ``clock`` and whether it has ``retired``.
        """
        with self.changed:
            self.began = time.time() if self.began is None else self.began
            self._incarnations[rank] = max(self._incarnations[rank], incarnation)
            return {"clock": self.vector.clocks[rank], "retired": rank in self.vector.retired}

    def wait_to_read(self, rank: int, clock: int) -> int:
        """Block until worker ``rank``, which is in ``clock``, may be answered.

        Returns:
            Clocks that every worker has finished by now.

        Raises:
            ChannelClosed: The board was closed meanwhile.
        """
        with self.changed:
            self._wait_as(rank, clock, lambda: may_read(self._consistency, self.vector, clock))
            return self.vector.slowest

    def advance(self, rank: int, incarnation: int, clock: int, metrics: Mapping[str, float] = _NOTHING) -> None:
        """A worker has come to ``clock``, and logged ``metrics`` on the way.

        Under BSP they count when the last worker has come as far: one decision, on one clock's values.
        """
        with self.changed:
            if incarnation >= self._incarnations[rank]:
                self._means.observe(rank, metrics)
                self._last_moves[rank] = time.monotonic()
                self._move(self.vector.advance(rank, clock))
        self._decide()

    def goes_on(self, rank: int, clock: int) -> bool:
        """Block until worker ``rank``, which has come to ``clock``, may be told whether training goes on.

        Where there is nothing to decide, for a moment at most: that keeps workers together, and no more depends on it.
        """
        with self.changed:
            seconds = BARRIER_SECONDS if self._rule is None else math.inf
            self._wait_as(rank, clock, lambda: self._may_go_on(clock), seconds)
            return self.reason is None

    def retire(self, rank: int, incarnation: int, metrics: Mapping[str, float] = _NOTHING) -> None:
        """A worker's ``train`` has returned; it logged ``metrics`` since its last clock."""
        with self.changed:
            if incarnation >= self._incarnations[rank]:
                self._means.observe(rank, metrics)
                self._move(self.vector.retire(rank))
        self._decide()

    def learn(self, clocks: list[int], retired: list[int]) -> None:
        """Take over what another board knows."""
        with self.changed:
            vector = self.vector
            for rank, clock in enumerate(clocks):
                vector = vector.advance(rank, clock)
            for rank in retired:
                vector = vector.retire(rank)
            self._move(vector)
        self._decide()

    @property
    def waiting(self) -> list[int]:
        """Workers that wait here now."""
        with self.changed:
            return sorted(self._waiting)

    def known(self) -> dict[str, Any]:
        """For another board's ``learn``."""
        with self.changed:
            return {"clocks": list(self.vector.clocks), "retired": sorted(self.vector.retired)}

    def wait(self, condition: Callable[[], bool], seconds: float | None = None) -> bool:
        """Wait on the locked board until ``condition`` holds; False when the time ran out.

        Raises:
            ChannelClosed: The board was closed meanwhile.
        """
        held = self.changed.wait_for(lambda: self._closed or condition(), seconds)
        if self._closed:
            raise ChannelClosed("this process has ended")
        return held

    def _wait_as(self, rank: int, clock: int, condition: Callable[[], bool], seconds: float = math.inf) -> None:
        """``wait``, and report who holds the worker up where that takes long."""
        end = time.monotonic() + seconds
        self._waiting[rank] = clock
        try:
            while not self.wait(condition, min(HOLD_SECONDS, max(0.0, end - time.monotonic()))):
                if time.monotonic() >= end:
                    return
                holdup = find(self.vector, self._waiting, self._last_moves, time.monotonic())
                if holdup is not None and not self._undecided:  # else the rule holds them up
                    self._report(holdup)
        finally:
            self._waiting.pop(rank, None)

    def close(self) -> None:
        """Free everybody who waits."""
        with self.changed:
            self._closed = True
            self.changed.notify_all()

    def _move(self, vector: VectorClock) -> None:
        before, self.vector = self.vector, vector
        if vector is before:
            return
        if vector.slowest != before.slowest:
            self._moved(vector.slowest)
        if vector.slowest > before.slowest or not self._consistency.buffers:
            self._ask_rule()
        self.changed.notify_all()

    def _may_go_on(self, clock: int) -> bool:
        return answer_tick(self._consistency, self.vector, clock) and not self._undecided

    def _ask_rule(self) -> None:
        """Have the rule asked of how things stand now."""
        if self._rule is None or self.reason is not None or self.vector.finished:
            return
        seconds = 0.0 if self.began is None else time.time() - self.began
        self._undecided.append(Status(self.vector.slowest, seconds, self._means.values()))

    def _decide(self) -> None:
        """Ask the rule, unless another thread does; unlocked, for the cell's function may take its time."""
        with self.changed:
            if self._deciding or self._rule is None:
                return
            self._deciding = True
        while (status := self._next_undecided()) is not None:
            reason = self._rule.reason(status)
            with self.changed:
                self._undecided.popleft()
                if reason is not None:
                    self._decided(reason)
                    self.reason = reason

    def _next_undecided(self) -> Status | None:
        with self.changed:
            if self._undecided and self.reason is None and not self._closed:
                return self._undecided[0]
            self._undecided.clear()
            self._deciding = False
            self.changed.notify_all()
            return None
