"""mpi4py's module ``MPI`` over the running rank's ``comm``: ``from paibook import MPI``.

What a program asks of MPI between ranks is here; what needs processes of its own making, files, memory windows or
communicators between groups is not, and says so.
"""

from __future__ import annotations

import platform
import time
from typing import Any

from paibook.comms import current
from paibook.comms.cartesian import CART, Cartcomm
from paibook.comms.cartesian import compute_dims as Compute_dims
from paibook.comms.communicator import MAX_TAG, Communicator
from paibook.comms.datatypes import BY_CODE, DATATYPES, Datatype
from paibook.comms.division import COMM_NULL
from paibook.comms.errors import CommunicatorError
from paibook.comms.groups import Group
from paibook.comms.operators import ANY_SOURCE, ANY_TAG, IN_PLACE, PREDEFINED, PROC_NULL, UNDEFINED
from paibook.comms.operators import Operator as Op
from paibook.comms.requests import REQUEST_NULL, Request
from paibook.comms.status import Status

__all__ = [
    "ANY_SOURCE",
    "ANY_TAG",
    "CART",
    "COMM_NULL",
    "IN_PLACE",
    "PROC_NULL",
    "REQUEST_NULL",
    "UNDEFINED",
    "Cartcomm",
    "Comm",
    "Compute_dims",
    "Datatype",
    "Exception",
    "Group",
    "Intracomm",
    "Op",
    "Request",
    "Status",
]

Comm = Intracomm = Communicator
Exception = CommunicatorError
TAG_UB = MAX_TAG
SUCCESS = 0
BOTTOM = INFO_NULL = STATUS_IGNORE = None
THREAD_SINGLE, THREAD_FUNNELED, THREAD_SERIALIZED, THREAD_MULTIPLE = range(4)
BSEND_OVERHEAD = 0
_typedict = BY_CODE

_ABSENT = {
    "File": "files: read and write with Python, or with paibook.data",
    "Win": "memory windows: use %%pai_ps for tables that ranks read and write one-sidedly",
    "Intercomm": "communicators between groups: use split, send and recv",
    "Graphcomm": "graphs of ranks: keep each rank's neighbours in a list",
    "Distgraphcomm": "graphs of ranks: keep each rank's neighbours in a list",
    "Info": "hints: leave them out",
}


def __getattr__(name: str) -> Any:
    if name == "COMM_WORLD":
        return current.world()
    if name == "COMM_SELF":
        return current.alone()
    if name in DATATYPES:
        return DATATYPES[name]
    if name in PREDEFINED:
        return PREDEFINED[name]
    if name in _ABSENT:
        raise AttributeError(f"paibook's MPI has no {name}, that is, no {_ABSENT[name]}")
    raise AttributeError(f"paibook's MPI has no {name!r}; docs/allreduce.md lists what it has")


def __dir__() -> list[str]:
    return sorted({*globals(), *DATATYPES, *PREDEFINED, "COMM_WORLD", "COMM_SELF"})


def Wtime() -> float:
    """Seconds from some moment in the past."""
    return time.perf_counter()


def Wtick() -> float:
    """The resolution of ``Wtime`` in seconds."""
    return time.get_clock_info("perf_counter").resolution


def Get_processor_name() -> str:
    """This host's name."""
    return platform.node()


def Get_version() -> tuple[int, int]:
    """The version of MPI whose operations these are."""
    return 3, 1


def Get_library_version() -> str:
    """What carries them out."""
    import paibook

    return f"paibook {paibook.__version__}"


def Is_initialized() -> bool:
    """True: ranks are ready when a cell begins."""
    return True


def Is_finalized() -> bool:
    """False: ranks outlive their cells."""
    return False


def Init() -> None:
    """Nothing to do here; programs written for MPI may call it."""


def Init_thread(required: int = THREAD_MULTIPLE) -> int:
    """As ``Init``; any thread may communicate."""
    return THREAD_MULTIPLE


def Query_thread() -> int:
    """Any thread may communicate."""
    return THREAD_MULTIPLE


def Finalize() -> None:
    """Nothing to do here; ranks outlive their cells."""


def Attach_buffer(buf: Any) -> None:
    """Nothing to do here; every send is buffered."""


def Detach_buffer() -> None:
    """Nothing to do here."""
