"""The ranks of one role in a run: what each runs, how often it was started, and its replacement when it dies."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from paibook.clusters.contract import OnEvent, Pending, Ranks
from paibook.errors import ClusterError, RankLost

ROOM_SECONDS = 15.0  # a Dask worker that dies with its rank is mostly back in a few seconds
ROOM_AGAIN_SECONDS = 0.3


class Group:
    """Runs one function on every rank of a role, and again on what takes the place of a rank that died.

    Args:
        ranks: Of the role.
        again: Gives as many ranks of it, with fresh ones in the place of the lost.
        function: ``function(place, job)``.
        job: The job of a rank's n-th process: called with the rank and n, from 0.
        on_event: As for ``Ranks.apply``.
        changed: Called whenever one ends.
        most: Deaths of one rank that are made good.
    """

    def __init__(
        self,
        ranks: Ranks,
        again: Callable[[], Ranks],
        function: Callable[..., Any],
        job: Callable[[int, int], Any],
        on_event: OnEvent,
        changed: Callable[[], None],
        most: int = 0,
    ) -> None:
        self.ranks = ranks
        self.pending: list[Pending[Any]] = []
        self.incarnations = [0] * ranks.size
        self._again = again
        self._function, self._job = function, job
        self._on_event, self._changed = on_event, changed
        self._most = most

    def start(self) -> None:
        """Start them all."""
        self.pending = self._apply(list(range(self.ranks.size)))

    def errors(self) -> dict[int, BaseException]:
        """Ranks that have ended with an error, and the error."""
        ended = {rank: error_of(pending) for rank, pending in enumerate(self.pending) if pending.done()}
        return {rank: error for rank, error in ended.items() if error is not None}

    def recovers(self, error: BaseException) -> bool:
        """Whether an error is a death that may be made good."""
        return self._most > 0 and isinstance(error, RankLost)

    def done(self) -> bool:
        """Whether all have ended."""
        return all(pending.done() for pending in self.pending)

    def busy(self) -> list[int]:
        """Ranks that have not ended."""
        return [rank for rank, pending in enumerate(self.pending) if not pending.done()]

    def replace(self, rank: int, loss: BaseException, check: Callable[[], None]) -> None:
        """Start a rank's function anew, on a fresh process where its own has died.

        Args:
            check: Called while there is no room for one; raises where the wait is to end.

        Raises:
            RankLost: It died too often, or there is no room for another.
        """
        role = self.ranks.role
        cause = loss.cause if isinstance(loss, RankLost) else str(loss)
        if self.incarnations[rank] >= self._most:
            times = self.incarnations[rank] + 1
            text = f"{cause}; that was its death {times}, and --max-restarts is {self._most}" if self._most else cause
            raise RankLost(role, rank, text) from loss
        deadline = time.monotonic() + ROOM_SECONDS
        while True:
            try:
                self.ranks = self._again()
                break
            except ClusterError as error:
                check()
                if time.monotonic() > deadline:
                    raise RankLost(role, rank, f"{cause}; there is no room for another: {error}") from error
                time.sleep(ROOM_AGAIN_SECONDS)
        self.ranks.take_losses()  # the driver says it
        self.incarnations[rank] += 1
        self.pending[rank] = self._apply([rank])[0]

    def _apply(self, chosen: list[int]) -> list[Pending[Any]]:
        started = self.ranks.apply(
            self._function,
            ranks=chosen,
            each=lambda rank: (self._job(rank, self.incarnations[rank]),),
            on_event=self._on_event,
        )
        for pending in started:
            pending.add_done_callback(lambda _: self._changed())
        return started


def error_of(pending: Pending[Any]) -> BaseException | None:
    """What a result that is done failed with."""
    try:
        return pending.exception(0)
    except BaseException as error:  # a cancelled future raises instead of returning; either way it is the answer
        return error
