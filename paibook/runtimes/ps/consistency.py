"""Consistency models as values: who may read when, and which buffered updates become visible; no I/O, no threads.

BSP (Valiant, "A bridging model for parallel computation", 1990), SSP (Ho et al., "More effective distributed ML via a
stale synchronous parallel parameter server", NIPS 2013) and ASP differ in two decisions only: how far the slowest
worker must have come before a pull is answered, and whether a push is applied at once or at the end of its clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from paibook.errors import PlanError

KINDS = ("bsp", "ssp", "asp")


@dataclass(frozen=True)
class Consistency:
    """What a pull may miss.

    Attributes:
        kind: ``"bsp"``: nothing of earlier clocks, and sees nothing of its own clock; ``"ssp"``: at most the updates
            of the last ``staleness`` clocks; ``"asp"``: anything still on its way.
        staleness: Clocks, 0 or more; used by SSP alone.
    """

    kind: str = "bsp"
    staleness: int = 0

    @classmethod
    def parse(cls, kind: Any, staleness: Any) -> Consistency:
        """Read the plan's two options.

        Raises:
            PlanError: Unknown kind, or a staleness that is no whole number of clocks.
        """
        if kind not in KINDS:
            raise PlanError(f"--consistency takes bsp, ssp or asp; got {kind!r}")
        if isinstance(staleness, bool) or not isinstance(staleness, int) or staleness < 0:
            raise PlanError(f"--staleness takes a whole number of clocks, 0 or more; got {staleness!r}")
        return cls(kind, staleness if kind == "ssp" else 0)

    @property
    def buffers(self) -> bool:
        """Whether pushes wait for the end of their clock."""
        return self.kind == "bsp"


@dataclass(frozen=True)
class VectorClock:
    """How many clocks each worker has finished.

    Attributes:
        clocks: One number per rank.
        retired: Ranks that will push no more; nobody waits for them.
    """

    clocks: tuple[int, ...]
    retired: frozenset[int] = frozenset()

    @classmethod
    def start(cls, world_size: int, clock: int = 0) -> VectorClock:
        """Nobody has finished anything since ``clock``."""
        return cls((clock,) * world_size)

    @cached_property
    def slowest(self) -> int:
        """Clocks finished by every worker still in the run; when all have retired, one more than any began.

        >>> VectorClock((3, 5)).slowest, VectorClock((3, 5), frozenset({0})).slowest
        (3, 5)
        >>> VectorClock((3, 5), frozenset({0, 1})).slowest
        6
        """
        active = [clock for rank, clock in enumerate(self.clocks) if rank not in self.retired]
        return min(active) if active else max(self.clocks) + 1

    @property
    def finished(self) -> bool:
        """Whether every worker has retired."""
        return len(self.retired) == len(self.clocks)

    def advance(self, rank: int, clock: int) -> VectorClock:
        """``rank`` has come to ``clock``; what is known already changes nothing.

        >>> VectorClock((3, 5)).advance(0, 4).advance(1, 2).clocks
        (4, 5)
        """
        if clock <= self.clocks[rank]:
            return self
        return replace(self, clocks=(*self.clocks[:rank], clock, *self.clocks[rank + 1 :]))

    def retire(self, rank: int) -> VectorClock:
        """``rank`` has left the run."""
        return replace(self, retired=self.retired | {rank})


def may_read(consistency: Consistency, vector: VectorClock, clock: int) -> bool:
    """Whether a worker in ``clock`` may be answered now.

    >>> two = VectorClock((0, 3))
    >>> [may_read(Consistency(kind, 2), two, 3) for kind in ("bsp", "ssp", "asp")]
    [False, False, True]
    >>> may_read(Consistency("ssp", 3), two, 3)
    True
    """
    return fresh_enough(consistency, vector.slowest, clock)


def fresh_enough(consistency: Consistency, seen: int, clock: int) -> bool:
    """Whether a worker in ``clock`` may use weights that hold every update of the clocks before ``seen``.

    >>> [fresh_enough(Consistency.parse(kind, 2), 4, 6) for kind in ("bsp", "ssp", "asp")]
    [False, True, True]
    """
    return consistency.kind == "asp" or seen >= clock - consistency.staleness


def answer_tick(consistency: Consistency, vector: VectorClock, clock: int) -> bool:
    """Whether a worker that has come to ``clock`` may be told now if training goes on.

    Under BSP it is told once everybody has come as far, so that all are told the same.
    """
    return not consistency.buffers or vector.slowest >= clock
