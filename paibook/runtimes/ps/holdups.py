"""Workers that keep the others waiting: who, at which clock, and for how long. Told once for each."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from paibook.clusters.contract import Event, OnEvent
from paibook.runtimes.ps.consistency import VectorClock

HOLD_SECONDS = 10.0  # that others wait before they say for whom
HOLDUP_MIME = "application/vnd.paibook.holdup+json"


@dataclass(frozen=True)
class Holdup:
    """Workers that wait for another.

    Attributes:
        waiting: Their ranks, each with the clock it is at.
        holder: The rank of the slowest worker.
        clock: The clock it is at.
        seconds: Since it last ended a clock, or joined.
    """

    waiting: tuple[tuple[int, int], ...]
    holder: int
    clock: int
    seconds: float

    @property
    def text(self) -> str:
        """One sentence.

        >>> print(Holdup(((1, 7), (2, 7)), 0, 3, 10.2).text)
        workers 1, 2 wait at clock 7 for worker 0, which is at clock 3 and has not called ps.clock() for 10 s
        >>> print(Holdup(((1, 7), (2, 6)), 0, 3, 10.2).text)
        workers 1, 2 wait at clocks 7, 6 for worker 0, which is at clock 3 and has not called ps.clock() for 10 s
        """
        ranks = ", ".join(str(rank) for rank, _ in self.waiting)
        clocks = list(dict.fromkeys(clock for _, clock in self.waiting))
        at = (
            f"clock {clocks[0]}" if len(clocks) == 1 else f"clocks {', '.join(str(clock) for _, clock in self.waiting)}"
        )
        who = f"workers {ranks} wait" if len(self.waiting) > 1 else f"worker {ranks} waits"
        return (
            f"{who} at {at} for worker {self.holder}, which is at clock {self.clock} and has not called ps.clock() "
            f"for {self.seconds:.0f} s"
        )

    def to_wire(self) -> dict[str, Any]:
        """As a JSON-able value."""
        return asdict(self)

    @classmethod
    def from_wire(cls, values: Mapping[str, Any]) -> Holdup:
        """Read back what ``to_wire`` made."""
        waiting = tuple((int(rank), int(clock)) for rank, clock in values["waiting"])
        return cls(waiting, int(values["holder"]), int(values["clock"]), float(values["seconds"]))


def find(vector: VectorClock, waiting: Mapping[int, int], moved: Sequence[float], now: float) -> Holdup | None:
    """Who holds up those who wait; None where nobody waits, or nobody is behind.

    Args:
        vector: Everybody's clocks.
        waiting: The ranks that wait, and their clocks.
        moved: When each rank last ended a clock, in seconds.
        now: The time.
    """
    active = [rank for rank in range(len(vector.clocks)) if rank not in vector.retired and rank not in waiting]
    if not waiting or not active:
        return None
    holder = min(active, key=lambda rank: (vector.clocks[rank], moved[rank]))
    return Holdup(tuple(sorted(waiting.items())), holder, vector.clocks[holder], now - moved[holder])


class HoldupNotices:
    """Shows what servers report, once for each worker that holds others up, and passes every other event on.

    Several servers may see the same wait.
    """

    def __init__(self, emit: OnEvent) -> None:
        self._emit = emit
        self._told: set[int] = set()
        self._lock = threading.Lock()

    def on_event(self, event: Event) -> None:
        """For ``Ranks.apply``."""
        data = event.data
        if event.kind != "display" or not isinstance(data, dict) or HOLDUP_MIME not in data:
            self._emit(event)
            return
        holdup = Holdup.from_wire(data[HOLDUP_MIME])
        with self._lock:
            if holdup.holder in self._told:
                return
            self._told.add(holdup.holder)
        self._emit(Event("stderr", "ps", -1, holdup.text + "\n"))
