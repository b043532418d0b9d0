"""Weights on their way: what ``Table.prefetch`` returns, and when such weights may still be used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paibook.runtimes.ps.key_sets import Keys, equal

MAX_PREFETCHED = 16  # of one table; the oldest is forgotten


@dataclass(eq=False)
class PullTicket:
    """A pull that was asked for.

    Attributes:
        rows: The keys, or None for a whole dense table.
        requests: One for each server concerned: its link, and what it was asked.
        places: Where their rows go in ``out``; None where they are read into it.
        out: The weights, once all have been answered.
    """

    rows: Keys | None
    requests: list[Any] = field(repr=False)
    places: list[Any] = field(repr=False)
    out: NDArray[Any] = field(repr=False)
    _finish: Callable[[PullTicket], NDArray[Any]] = field(repr=False)

    def result(self) -> NDArray[Any]:
        """The weights; blocks until they are here. What is too stale by now is pulled again.

        Raises:
            TableError: As ``Table.pull``.
        """
        return self._finish(self)

    def gather(self) -> NDArray[Any]:
        """Put the answers together."""
        for where, (_, request) in zip(self.places, self.requests, strict=True):
            if where is not None:
                self.out[where] = request.into
        return self.out


class Prefetched:
    """The tickets of one table that nobody has used yet."""

    def __init__(self) -> None:
        self._tickets: list[PullTicket] = []

    def add(self, ticket: PullTicket) -> None:
        """Keep one for the pull to come."""
        self._tickets.append(ticket)
        del self._tickets[:-MAX_PREFETCHED]

    def take(self, rows: Keys | None) -> PullTicket | None:
        """The oldest ticket for these keys, which is used up by that."""
        for ticket in self._tickets:
            if _same(ticket.rows, rows):
                self._tickets.remove(ticket)
                return ticket
        return None

    def forget(self, ticket: PullTicket) -> None:
        """Whoever holds the ticket uses it."""
        if ticket in self._tickets:
            self._tickets.remove(ticket)


def _same(a: np.ndarray[Any, Any] | None, b: np.ndarray[Any, Any] | None) -> bool:
    return a is b if a is None or b is None else equal(a, b)
