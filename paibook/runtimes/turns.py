"""Whose turn it is on a cluster's ranks: one run at a time, whatever its programming model, in order of asking."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from paibook.clusters.contract import Cluster, Event
from paibook.errors import RunCancelled
from paibook.runtimes.contract import RunContext

QUIET_SECONDS = 0.5  # a wait that is shorter than this is not worth a line


class _Queue:
    """The runs of one cluster: the first holds the ranks, the others wait."""

    def __init__(self) -> None:
        self.runs: list[RunContext] = []
        self.changed = threading.Condition()

    def notify(self) -> None:
        with self.changed:
            self.changed.notify_all()


_queues: weakref.WeakKeyDictionary[Cluster, _Queue] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


@contextmanager
def turn(cluster: Cluster, context: RunContext) -> Iterator[None]:
    """Hold the cluster's ranks for one run; wait for the runs before it, and touch nothing until they have ended.

    Raises:
        RunCancelled: The run was stopped while it waited.
    """
    with _lock:
        queue = _queues.setdefault(cluster, _Queue())
    with queue.changed:
        queue.runs.append(context)
    try:
        context.on_cancel(queue.notify)
        _wait(queue, context)
        yield
    finally:
        with queue.changed:
            # By identity: dataclasses compare by value, and two runs may look alike.
            queue.runs[:] = [waiting for waiting in queue.runs if waiting is not context]
            queue.changed.notify_all()


def check_before(context: RunContext) -> None:
    """Raise ``RunCancelled`` for a run that was stopped before its ranks were asked for anything."""
    if context.cancelled:
        raise RunCancelled("the run was stopped before it began; the ranks kept their variables")


def kept(size: int, killed: Collection[int], lost: Collection[int] = ()) -> str:
    """What has become of the variables of ``size`` ranks when their run was stopped, in words.

    >>> kept(2, [])
    'the ranks kept their variables'
    >>> kept(2, [1])
    'rank 1 did not react and had to be killed: its variables are gone; the others kept theirs'
    """
    texts = []
    for ranks, fate in ((killed, "did not react and had to be killed"), (lost, "ended by then")):
        if ranks:
            one = len(ranks) == 1
            names = f"rank{'' if one else 's'} {', '.join(map(str, sorted(ranks)))}"
            texts.append(f"{names} {fate}: {'its' if one else 'their'} variables are gone")
    if not texts:
        return "the ranks kept their variables"
    return "; ".join(texts if len(killed) + len(lost) >= size else [*texts, "the others kept theirs"])


def _wait(queue: _Queue, context: RunContext) -> None:
    def ready() -> bool:
        return context.cancelled or queue.runs[0] is context

    with queue.changed:
        at_once = queue.changed.wait_for(ready, QUIET_SECONDS)
        before = queue.runs[0].run
    if not at_once:
        text = f"waiting for run {before} on the same ranks; Stop withdraws this cell only\n"
        context.emit(Event("stderr", "run", -1, text))
        with queue.changed:
            queue.changed.wait_for(ready)
    check_before(context)
