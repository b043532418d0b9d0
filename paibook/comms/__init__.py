"""How processes talk: the communicator and its operators. Nothing here imports torch until ranks are processes."""

from __future__ import annotations

from paibook.comms.communicator import Communicator, CommunicatorError
from paibook.comms.operators import ANY_SOURCE, ANY_TAG, IN_PLACE, LAND, LOR, MAX, MIN, PROD, SUM, Operator

__all__ = [
    "ANY_SOURCE",
    "ANY_TAG",
    "IN_PLACE",
    "LAND",
    "LOR",
    "MAX",
    "MIN",
    "PROD",
    "SUM",
    "Communicator",
    "CommunicatorError",
    "Operator",
]
