"""The communicator of the rank that is running, for code that has no ``comm`` at hand."""

from __future__ import annotations

import threading
from typing import Any

from paibook.comms.errors import CommunicatorError

_of_thread = threading.local()
_of_process: list[Any] = []


def enter(comm: Any, whole_process: bool) -> None:
    """Say whose code this thread runs from now on.

    Args:
        whole_process: The rank is the process, and threads that its cells start are of the same rank.
    """
    _of_thread.comm = comm
    if whole_process:
        _of_process[:] = [comm]


def world() -> Any:
    """This rank's ``comm``.

    Raises:
        CommunicatorError: This is no rank.
    """
    comm = getattr(_of_thread, "comm", None) or (_of_process[0] if _of_process else None)
    if comm is None:
        raise CommunicatorError(
            "MPI.COMM_WORLD is there on ranks only: run this in a %%pai_allreduce cell; on the inline cluster, "
            "take it in the cell's own thread and hand it to others"
        )
    return comm


def alone() -> Any:
    """A communicator of this rank only; the same as long as ``comm`` is."""
    comm = world()
    kept = getattr(_of_thread, "alone", None)
    if kept is None or kept[0] is not comm:
        from paibook.comms.threads import ThreadCommunicator, ThreadGroup  # they stand on the rest

        communicator = ThreadCommunicator(ThreadGroup(1), 0)
        communicator.name = "MPI_COMM_SELF"
        kept = _of_thread.alone = (comm, communicator)
    return kept[1]
