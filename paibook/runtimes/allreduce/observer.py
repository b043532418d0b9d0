"""Watches a cell from the driver's side: gathers what its ranks tell, and says when there is something to draw."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from paibook.clusters.contract import Ranks
from paibook.comms.paths import THREADS
from paibook.runtimes.allreduce.cell import Cell, Report, World
from paibook.runtimes.allreduce.picture import WAIT_SECONDS, picture

DRAW_SECONDS = 0.25
AGAIN_SECONDS = 1.0  # where nothing changes but how long ranks have been in their operations


class Observer:
    """What the ranks of one cell have told so far.

    Args:
        ranks, world, cell: What runs where.
        changed: Called, from any thread, when there is something new.
    """

    def __init__(self, ranks: Ranks, world: World, cell: Cell, changed: Callable[[], None]) -> None:
        self._ranks, self._world, self._chosen, self._changed = ranks, world, cell.ranks, changed
        self._told: dict[int, tuple[Mapping[str, Any], float]] = {}
        self._ended: dict[int, str] = {}
        self._began = time.monotonic()
        self._drawn = float("-inf")
        self._new = False
        self._again: float | None = None  # seconds after which the picture is another, if nobody says anything
        self._hosts: list[tuple[str, list[int]]] = []

    @property
    def communicates(self) -> bool:
        """Whether there is anything to draw."""
        return any(words["operations"] or words["sent"] or words["torch"] for words, _ in list(self._told.values()))

    def take(self, rank: int, words: Mapping[str, Any]) -> None:
        """Hear a rank, from any thread; what comes after its last word is old."""
        if rank in self._ended:
            return
        first = not self.communicates  # until then nobody waits for a time to draw
        self._told[rank] = words, time.monotonic()
        if first or not self._new:
            self._new = True
            self._changed()

    def end(self, rank: int, how: str) -> None:
        """A rank is not in the cell any more: ``ended``, ``failed``, ``stopped`` or ``lost``."""
        self._ended[rank] = how
        self._new = True

    def file(self, report: Report) -> None:
        """A rank has come back."""
        if report.activity is not None:
            self._told[report.rank] = report.activity, time.monotonic()
        failed = report.error is not None and not report.consequence
        stopped = report.error is not None or report.interrupted or report.left
        self.end(report.rank, "failed" if failed else "stopped" if stopped else "ended")

    def due(self) -> float | None:
        """When to draw next, on the monotonic clock; None where there is nothing to draw."""
        after = DRAW_SECONDS if self._new else self._again
        return None if after is None or not self.communicates else self._drawn + after

    def draw(self) -> dict[str, Any]:
        """The picture now; see ``picture``."""
        self._new, self._drawn = False, time.monotonic()
        told = {rank: self._aged(rank, words, heard) for rank, (words, heard) in self._told.copy().items()}
        how = THREADS if self._world.threads else self._world.backend
        drawn = picture(how, self._by_host(), told, self._ended, self._drawn - self._began)
        inside = [rank for rank in drawn["ranks"] if rank["call"] is not None and rank["rank"] not in self._ended]
        soon = any(rank["seconds"] < WAIT_SECONDS for rank in inside)
        self._again = None if not inside else WAIT_SECONDS if soon else AGAIN_SECONDS
        return drawn

    def _aged(self, rank: int, words: Mapping[str, Any], heard: float) -> Mapping[str, Any]:
        if words["call"] is None or rank in self._ended:
            return words
        return {**words, "seconds": words["seconds"] + self._drawn - heard}

    def _by_host(self) -> Sequence[tuple[str, list[int]]]:
        if not self._hosts:
            names = [status.host for status in self._ranks.status()]
            # Hosts that meet in different folders are different, whatever their names.
            keys = self._world.meeting.folders or names
            for key in dict.fromkeys(keys[rank] for rank in self._chosen):
                here = [rank for rank in self._chosen if keys[rank] == key]
                self._hosts.append((names[here[0]], here))
        return self._hosts
