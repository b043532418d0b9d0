"""A communicator that connects at its first operation, so that a cell that does not communicate pays nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NoReturn

from paibook.comms.calls import COLLECTIVES, POINT_TO_POINT, CallLog
from paibook.comms.communicator import Communicator

Connect = Callable[[], Communicator]
_OPERATIONS = frozenset(name for name in dir(Communicator) if not name.startswith("_"))


class DeferredCommunicator:
    """Stands for the current communicator of a rank, whichever it is; has every operation of ``Communicator``.

    Variables that hold it stay good when the group behind it is replaced.

    Args:
        rank, size: Known before any connection.
        connect: Gives the communicator, connecting at the first call.

    Attributes:
        calls: What was called on it.
    """

    def __init__(self, rank: int, size: int, connect: Connect) -> None:
        self.calls = CallLog()
        self.point_to(rank, size, connect)

    def point_to(self, rank: int, size: int, connect: Connect) -> None:
        """Stand for another communicator from now on."""
        self.rank = rank
        self.size = size
        self._connect = connect

    def Get_rank(self) -> int:
        """This rank's number."""
        return self.rank

    def Get_size(self) -> int:
        """How many ranks there are."""
        return self.size

    def __getattr__(self, name: str) -> Any:
        # Names outside the interface must not connect: displaying ``comm`` asks for many.
        if name not in _OPERATIONS:
            raise AttributeError(f"a communicator has no attribute {name!r}")
        constant = getattr(Communicator, name)
        if name in COLLECTIVES or name in POINT_TO_POINT:
            logged = self.calls.logged(name, lambda: getattr(self._connect(), name))
            self.__dict__[name] = functools.update_wrapper(logged, constant)  # found without this method from now on
            return logged
        return getattr(self._connect(), name) if hasattr(constant, "__get__") else constant

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_OPERATIONS})

    def __repr__(self) -> str:
        return f"<comm: rank {self.rank} of {self.size}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("comm belongs to its own rank and cannot be sent elsewhere")


Communicator.register(DeferredCommunicator)
