"""The cards of this machine: which there are, how they stand, and who holds which."""

from paibook.gpus.assignment import assign
from paibook.gpus.devices import CardProcess, Device, Reading, environment_of
from paibook.gpus.discovery import absent, discover, readings
from paibook.gpus.holders import Holder, Lease
from paibook.gpus.leases import LeaseBook
from paibook.gpus.room import WHOLE, Policy, choose, room

__all__ = [
    "WHOLE",
    "CardProcess",
    "Device",
    "Holder",
    "Lease",
    "LeaseBook",
    "Policy",
    "Reading",
    "absent",
    "assign",
    "choose",
    "discover",
    "environment_of",
    "readings",
    "room",
]
