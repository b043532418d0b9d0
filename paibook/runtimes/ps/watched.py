"""The metrics a stop condition looks at, on their way from each worker's ``pai.log`` to the coordinator's decision.

They travel with the worker's own CLOCK message, so that a decision is about the clock that has just ended; the run's
metric stream, which is batched and late, has no part in it.
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from paibook.metrics import Emit, Recorder
from paibook.runtimes.ps.until import BUILT_IN


class WatchedRecorder(Recorder):
    """A recorder that also keeps the latest value of each watched metric until it is taken.

    Args:
        emit, rank: As for any recorder.
        names: The metrics to watch; None for all.
    """

    def __init__(self, emit: Emit, rank: int, names: Iterable[str] | None) -> None:
        super().__init__(emit, rank)
        self._names = None if names is None else frozenset(names)
        self._fresh: dict[str, float] = {}
        self._watch = threading.Lock()

    def record(self, step: int | None, values: dict[str, Any]) -> None:
        """Queue one record per value, and remember those watched."""
        super().record(step, values)
        watched = values.keys() if self._names is None else self._names & values.keys()
        if watched:
            with self._watch:
                self._fresh.update((name, float(values[name])) for name in watched)

    def take(self) -> dict[str, float]:
        """The watched values logged since the last call, the latest of each."""
        with self._watch:
            fresh, self._fresh = self._fresh, {}
        return fresh


class WatchedMeans:
    """The mean over ranks of each rank's latest value, for the metrics that a decision looks at.

    Args:
        names: Which; None for all.
    """

    def __init__(self, names: Iterable[str] | None = ()) -> None:
        self._names = None if names is None else frozenset(names)
        self._latest: dict[str, dict[int, float]] = {}

    def observe(self, rank: int, values: Mapping[str, float]) -> None:
        """Take in what a rank has logged."""
        for name in values if self._names is None else self._names & values.keys():
            self._latest.setdefault(name, {})[rank] = values[name]

    def values(self) -> dict[str, float]:
        """Name to mean, for those logged so far; added up in rank order, so that the result is exact."""
        return {name: sum(v[rank] for rank in sorted(v)) / len(v) for name, v in self._latest.items() if v}


def never_logged(names: Iterable[str], logged: Iterable[str]) -> str:
    """A sentence about each watched metric that nobody ever logged, with the nearest name; empty when there is none.

    >>> never_logged(["lss"], ["loss"])
    "--until looks at 'lss', which no rank ever logged (logged: loss); did you mean 'loss'?"
    """
    known = tuple(logged)
    sentences = []
    for name in names:
        if name in known:
            continue
        near = difflib.get_close_matches(name, [*known, *BUILT_IN], n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        shown = ", ".join(known) or "nothing"
        sentences.append(f"--until looks at {name!r}, which no rank ever logged (logged: {shown}){hint}")
    return ". ".join(sentences)
