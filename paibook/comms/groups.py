"""Sets of ranks in an order, to make communicators of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paibook.comms.operators import UNDEFINED


@dataclass(frozen=True)
class Group:
    """Some ranks of a world; nothing is sent to make one.

    Attributes:
        members: The world's rank of each rank here.
        here: This process's rank in the world.
    """

    members: tuple[int, ...]
    here: int

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return len(self.members)

    @property
    def rank(self) -> int:
        """This process's rank in the group; ``UNDEFINED`` when it is not there."""
        return self.members.index(self.here) if self.here in self.members else UNDEFINED

    def Get_size(self) -> int:
        """How many ranks there are."""
        return self.size

    def Get_rank(self) -> int:
        """This process's rank in the group; ``UNDEFINED`` when it is not there."""
        return self.rank

    def Incl(self, ranks: Sequence[int]) -> Group:
        """The group of these ranks, in the order given."""
        return self._of([self.members[rank] for rank in self._checked(ranks)])

    def Excl(self, ranks: Sequence[int]) -> Group:
        """The group of all but these ranks."""
        left_out = self._checked(ranks)
        return self._of([member for rank, member in enumerate(self.members) if rank not in left_out])

    def Union(self, other: Group) -> Group:
        """This group's ranks, and then the other's that are not among them."""
        return self._of([*self.members, *(member for member in other.members if member not in self.members)])

    def Intersection(self, other: Group) -> Group:
        """This group's ranks that are also the other's."""
        return self._of([member for member in self.members if member in other.members])

    def Difference(self, other: Group) -> Group:
        """This group's ranks that are not the other's."""
        return self._of([member for member in self.members if member not in other.members])

    def Translate_ranks(self, ranks: Sequence[int] | None = None, group: Group | None = None) -> list[int]:
        """The other group's numbers of these ranks, or of all; ``UNDEFINED`` for those that are not there."""
        chosen = self._checked(range(self.size) if ranks is None else ranks)
        known = self.members if group is None else group.members
        return [known.index(self.members[rank]) if self.members[rank] in known else UNDEFINED for rank in chosen]

    def Free(self) -> None:
        """Nothing to do here; programs written for MPI call it."""

    def _of(self, members: Sequence[int]) -> Group:
        return Group(tuple(members), self.here)

    def _checked(self, ranks: Sequence[int]) -> list[int]:
        chosen = [int(rank) for rank in ranks]
        if len(set(chosen)) != len(chosen) or not all(0 <= rank < self.size for rank in chosen):
            raise ValueError(f"ranks must be different ranks from 0 to {self.size - 1}; got {chosen}")
        return chosen
