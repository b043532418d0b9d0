"""How processes talk: the communicator and its operators. Nothing here imports torch until ranks are processes."""

from __future__ import annotations

from paibook.comms import cartesian as _cartesian  # noqa: F401 - the parts of a communicator, grids among them
from paibook.comms.communicator import Communicator
from paibook.comms.errors import Aborted, CommunicatorError
from paibook.comms.operators import (
    ANY_SOURCE,
    ANY_TAG,
    BAND,
    BOR,
    BXOR,
    IN_PLACE,
    LAND,
    LOR,
    LXOR,
    MAX,
    MAXLOC,
    MIN,
    MINLOC,
    PROC_NULL,
    PROD,
    SUM,
    Operator,
)
from paibook.comms.requests import Request
from paibook.comms.status import Status

__all__ = [
    "ANY_SOURCE",
    "ANY_TAG",
    "BAND",
    "BOR",
    "BXOR",
    "IN_PLACE",
    "LAND",
    "LOR",
    "LXOR",
    "MAX",
    "MAXLOC",
    "MIN",
    "MINLOC",
    "PROC_NULL",
    "PROD",
    "SUM",
    "Aborted",
    "Communicator",
    "CommunicatorError",
    "Operator",
    "Request",
    "Status",
]
