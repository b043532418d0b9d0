"""What goes wrong between ranks."""

from __future__ import annotations

from paibook.errors import RunError


class CommunicatorError(RunError):
    """An operation that could not end, because a peer left the group or the group was ended."""


class Aborted(RunError):
    """A rank called ``Abort``: the cell ends on every rank."""
