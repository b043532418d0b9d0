"""Communicators made from others: parts, copies, grids. They share the messages and the end of their world."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, NoReturn

from paibook.comms.errors import Aborted
from paibook.comms.grid import Grid
from paibook.comms.groups import Group
from paibook.comms.nonblocking import Background
from paibook.comms.operators import UNDEFINED
from paibook.comms.point_to_point import PointToPoint
from paibook.comms.requests import Request
from paibook.comms.transport import derived_context

# Parts of a communicator are communicators, which stand on this module: their classes say so here when they are loaded.
part_classes: dict[str, Any] = {}


class Divisible(PointToPoint):
    """Making communicators, and what a program may ask of one."""

    name: str = "MPI_COMM_WORLD"
    _made: int = 0
    _background: Background | None = None

    def abort(self) -> None:
        """End the group: a peer blocked in an operation gets ``CommunicatorError``. Any thread may call it."""
        raise NotImplementedError

    def allgather(self, sendobj: Any) -> list[Any]:
        """Every rank's object in rank order, on every rank."""
        raise NotImplementedError

    def split(self, color: int = 0, key: int = 0) -> Any:
        """Divide the ranks: those with the same ``color`` form a communicator, ordered by ``key`` and then rank.

        Args:
            color: A whole number from 0; ``UNDEFINED`` for none, which gives ``COMM_NULL``.

        Raises:
            ValueError: A color or key is none; raised on every rank.
        """
        problem = None
        if not isinstance(color, Integral) or (color < 0 and color != UNDEFINED) or not isinstance(key, Integral):
            problem = (
                f"split takes a color from 0, or UNDEFINED, and a whole key; rank {self.rank} gave {color!r}, {key!r}"
            )
        answers = self.allgather((color, key, problem))
        for _, _, text in answers:
            if text is not None:
                raise ValueError(text)
        self._made += 1
        if color == UNDEFINED:
            return COMM_NULL
        chosen = sorted((its_key, rank) for rank, (its_color, its_key, _) in enumerate(answers) if its_color == color)
        return self._part([rank for _, rank in chosen], "", self._made, int(color))

    def Split(self, color: int = 0, key: int = 0) -> Any:
        """As ``split``."""
        return self.split(color, key)

    def dup(self) -> Any:
        """A communicator of the same ranks whose messages do not meet this one's."""
        self.allgather(None)
        self._made += 1
        return self._part(range(self.size), self.name, self._made, "dup")

    def Dup(self, info: Any = None) -> Any:
        """As ``dup``."""
        return self.dup()

    def Clone(self) -> Any:
        """As ``dup``."""
        return self.dup()

    def Get_group(self) -> Group:
        """This communicator's ranks, as a group."""
        return Group(tuple(self.members), self.transport.rank)

    def Create(self, group: Group) -> Any:
        """A communicator of a group's ranks; every rank here calls it, and those outside get ``COMM_NULL``."""
        ranks = self._ranks_of(group)
        self.allgather(None)
        self._made += 1
        return self._part(ranks, "", self._made, "group", group.members) if self.rank in ranks else COMM_NULL

    def Create_group(self, group: Group, tag: int = 0) -> Any:
        """A communicator of a group's ranks, which alone call it."""
        ranks = self._ranks_of(group)
        if self.rank not in ranks:
            return COMM_NULL
        # Only these ranks can count how often they did this.
        turns = self.__dict__.setdefault("_turns", {})
        turn = turns[group.members, tag] = turns.get((group.members, tag), 0) + 1
        return self._part(ranks, "", "group", group.members, tag, turn)

    def Create_cart(
        self, dims: Sequence[int], periods: Sequence[bool] | bool | None = None, reorder: bool = False
    ) -> Any:
        """The first ranks as a grid of ``dims``; ``COMM_NULL`` on those left over.

        Args:
            periods: Whether each dimension is a ring.
            reorder: Ranks keep their order in any case.
        """
        grid = Grid.of(dims, periods, self.size)
        self.allgather(None)
        self._made += 1
        if self.rank >= grid.size:
            return COMM_NULL
        context = derived_context(self.context, self._made, "cart")
        return part_classes["grid"](self, range(grid.size), context, grid)

    def Free(self) -> None:
        """Give a communicator made by ``split`` or ``dup`` back; the world's stays."""
        raise ValueError("comm itself cannot be freed; communicators made from it, by split or dup, can be")

    def Abort(self, errorcode: int = 0) -> NoReturn:
        """End the cell on every rank, as an error of this one."""
        raise Aborted(f"rank {self.rank} called Abort({errorcode}) on {self.name or 'a communicator'}")

    def Get_name(self) -> str:
        """The name that ``Set_name`` gave."""
        return self.name

    def Set_name(self, name: str) -> None:
        """Name the communicator on this rank."""
        self.name = name

    def Is_inter(self) -> bool:
        """Whether it joins two groups; none does."""
        return False

    def Is_intra(self) -> bool:
        """Whether it is of one group; each is."""
        return True

    def Get_topology(self) -> int:
        """``UNDEFINED``, or that of a grid."""
        return UNDEFINED

    def Create_intercomm(self, *arguments: Any, **keywords: Any) -> NoReturn:
        """Not available."""
        raise NotImplementedError("communicators between groups are not available; split, send and recv are")

    def _ranks_of(self, group: Group) -> list[int]:
        strangers = [member for member in group.members if member not in self.members]
        if strangers:
            raise ValueError(
                f"group must hold ranks of this communicator; ranks {strangers} of the world are not in it"
            )
        return [self.members.index(member) for member in group.members]

    def _part(self, ranks: Sequence[int], name: str, *path: object) -> Any:
        return part_classes["part"](self, ranks, derived_context(self.context, *path), name)

    def _in_background(self, operation: str, *arguments: Any) -> Request:
        if self._background is None:
            # Its messages must not meet this communicator's own. All ranks make it, so no agreement is needed.
            self._background = Background(self.transport, self._part(range(self.size), self.name, "background"))
        return self._background.begin(operation, *arguments)


class NullCommunicator:
    """What a rank gets that is in no part; false, and equal to itself only."""

    def __bool__(self) -> bool:
        return False

    def Free(self) -> None:
        """Nothing to give back."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(
            f"COMM_NULL has no {name!r}: this rank is in no part of the divided communicator; "
            "ask `if part != MPI.COMM_NULL` first"
        )

    def __repr__(self) -> str:
        return "MPI.COMM_NULL"

    def __reduce__(self) -> str:
        return "COMM_NULL"


COMM_NULL = NullCommunicator()
