"""What is known of a message that was received or found waiting."""

from __future__ import annotations

from typing import Any

from paibook.comms.datatypes import BYTE, known
from paibook.comms.operators import ANY_SOURCE, ANY_TAG, PROC_NULL, UNDEFINED


class Status:
    """Filled in by an operation that is given it as ``status=``.

    Attributes:
        source: The sender.
        tag: The message's tag.
        count: Its bytes; of an object, those of its pickle.
        error: 0; failures are exceptions here.
        cancelled: Whether the operation was cancelled.
    """

    def __init__(self) -> None:
        self.fill(ANY_SOURCE, ANY_TAG, 0)

    def fill(self, source: int, tag: int, count: int, cancelled: bool = False) -> None:
        """Describe another message from now on."""
        self.source, self.tag, self.count, self.cancelled, self.error = source, tag, count, cancelled, 0

    def Get_source(self) -> int:
        """The sender."""
        return self.source

    def Get_tag(self) -> int:
        """The message's tag."""
        return self.tag

    def Get_error(self) -> int:
        """Always 0."""
        return self.error

    def Get_count(self, datatype: Any = BYTE) -> int:
        """How many whole elements of ``datatype`` were received; ``UNDEFINED`` when there is a rest."""
        kind = known(datatype)
        if kind is None:
            raise TypeError(f"datatype must be one such as MPI.DOUBLE; got {datatype!r}")
        return self.count // kind.size if self.count % kind.size == 0 else UNDEFINED

    def Get_elements(self, datatype: Any = BYTE) -> int:
        """As ``Get_count``."""
        return self.Get_count(datatype)

    def Is_cancelled(self) -> bool:
        """Whether the operation was cancelled."""
        return self.cancelled

    def __repr__(self) -> str:
        return f"<status: source {self.source}, tag {self.tag}, {self.count} bytes>"


def describe(status: Status | None, source: int, tag: int, count: int) -> None:
    """Fill in a status, if there is one."""
    if status is not None:
        status.fill(source, tag, count)


def describe_null(status: Status | None) -> None:
    """Fill in what a receive from nobody gives."""
    describe(status, PROC_NULL, ANY_TAG, 0)
