"""Which rank of which group the running code is: how ``pai.shard`` and the estimators know without being told.

As with ``pai.log``: in a process that is one rank it holds for all threads, where ranks are threads for each its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from paibook.comms.communicator import Communicator
from paibook.comms.threads import ThreadCommunicator, ThreadGroup
from paibook.errors import PlanError


@dataclass(frozen=True)
class Position:
    """A rank's place in its group.

    Attributes:
        rank, size: Its number, and how many ranks there are.
        comm: For talking to the others; None where they have no collectives (workers of a parameter server).
    """

    rank: int
    size: int
    comm: Communicator | None = None


_ALONE = Position(0, 1)
_current: ContextVar[Position | None] = ContextVar("paibook_position", default=None)
_process: Position | None = None


def position() -> Position:
    """The running cell's; outside of a cell that of the only rank."""
    return _current.get() or _process or _ALONE


def group(comm: Communicator | None = None) -> Communicator:
    """The communicator given, else the running cell's; outside of a cell one of a group with this rank alone.

    Raises:
        PlanError: The cell's ranks have no collectives.
    """
    here = position()
    found = comm or here.comm
    if found is None and here is not _ALONE:
        raise PlanError(
            "this needs all-reduce between ranks, which workers of %%pai_ps do not have: use %%pai_allreduce"
        )
    return ThreadCommunicator(ThreadGroup(1), 0) if found is None else found


@contextmanager
def positioned(here: Position, whole_process: bool = False) -> Iterator[None]:
    """Make a position the current one in this context (or in the whole process)."""
    global _process
    token, before = _current.set(here), _process
    if whole_process:
        _process = here
    try:
        yield
    finally:
        _current.reset(token)
        if whole_process:
            _process = before
