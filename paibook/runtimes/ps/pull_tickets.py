"""Weights on their way: what ``Table.prefetch`` returns, and when such weights may still be used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paibook.runtimes.ps.filters import pulled
from paibook.runtimes.ps.key_sets import Keys, equal
from paibook.runtimes.ps.links import Links
from paibook.runtimes.ps.server_link import Request

MAX_PREFETCHED = 16  # of one table; the oldest is forgotten


@dataclass(frozen=True)
class Answer:
    """One server's part of a pull.

    Attributes:
        request: What its partition was asked.
        where: Where its rows go in the whole; None where they are read into it.
        rows: How many.
        flag: The filter they come through, or 0.
    """

    request: Request
    where: Any
    rows: int
    flag: int


@dataclass(eq=False)
class PullTicket:
    """A pull that was asked for.

    Attributes:
        rows: The keys, or None for a whole dense table.
        parts: One for each server concerned.
        out: The weights, once all have been answered.
    """

    rows: Keys | None
    parts: list[Answer] = field(repr=False)
    out: NDArray[Any] = field(repr=False)
    _finish: Callable[[PullTicket], NDArray[Any]] = field(repr=False)

    def result(self) -> NDArray[Any]:
        """The weights; blocks until they are here. What is too stale by now is pulled again.

        Raises:
            TableError: As ``Table.pull``.
        """
        return self._finish(self)

    def wait(self, links: Links) -> None:
        """Block until all of it is here.

        Raises:
            TableError: A server refused it.
        """
        links.wait_for_answers([part.request for part in self.parts])
        links.check()

    def gather(self) -> NDArray[Any]:
        """Put the answers together."""
        for part in self.parts:
            if part.where is not None:
                shape = (part.rows, *self.out.shape[1:])
                assert part.request.into is not None
                self.out[part.where] = pulled(part.flag, part.request.into, shape, self.out.dtype)
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
