"""The communicator of the rank that is running, for code that has no ``comm`` at hand."""

from __future__ import annotations

import threading
from typing import Any

from paibook.comms.errors import CommunicatorError
from paibook.comms.positions import position
from paibook.comms.threads import ThreadCommunicator, ThreadGroup

_of_thread = threading.local()


def world() -> Any:
    """This rank's ``comm``.

    Raises:
        CommunicatorError: This is no rank.
    """
    comm = position().comm
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
        communicator = ThreadCommunicator(ThreadGroup(1), 0)
        communicator.name = "MPI_COMM_SELF"
        kept = _of_thread.alone = (comm, communicator)
    return kept[1]
