"""Ranks as the places of a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from paibook.comms.division import COMM_NULL, Divisible, part_classes
from paibook.comms.grid import Grid
from paibook.comms.operators import PROC_NULL
from paibook.comms.subgroup import Subgroup

CART = 1


class Cartcomm(Subgroup):
    """A communicator whose ranks are the places of a grid."""

    def __init__(self, parent: Divisible, ranks: Sequence[int], context: int, grid: Grid) -> None:
        super().__init__(parent, ranks, context)
        self.grid = grid

    @property
    def dims(self) -> list[int]:
        """Length of each dimension."""
        return list(self.grid.dims)

    @property
    def periods(self) -> list[int]:
        """1 for each dimension that is a ring, 0 for others."""
        return [int(ring) for ring in self.grid.periods]

    @property
    def coords(self) -> list[int]:
        """Where this rank is."""
        return self.grid.coordinates(self.rank)

    @property
    def ndim(self) -> int:
        """How many dimensions there are."""
        return len(self.grid.dims)

    def Get_dim(self) -> int:
        """How many dimensions there are."""
        return self.ndim

    def Get_topo(self) -> tuple[list[int], list[int], list[int]]:
        """``dims``, ``periods`` and this rank's coordinates."""
        return self.dims, self.periods, self.coords

    def Get_topology(self) -> int:
        return CART

    def Get_coords(self, rank: int) -> list[int]:
        """Where a rank is."""
        self._check_rank("rank", rank)
        return self.grid.coordinates(rank)

    def Get_cart_rank(self, coords: Sequence[int]) -> int:
        """Who is there; coordinates may go round a ring.

        Raises:
            ValueError: Outside the grid.
        """
        rank = self.grid.rank(coords) if len(coords) == self.ndim else PROC_NULL
        if rank == PROC_NULL:
            raise ValueError(f"coords must lie in the grid {self.dims}; got {list(coords)}")
        return rank

    def Shift(self, direction: int, disp: int) -> tuple[int, int]:
        """Source and destination of a shift along a dimension; ``PROC_NULL`` beyond an edge."""
        if not 0 <= direction < self.ndim:
            raise ValueError(f"direction must be a dimension from 0 to {self.ndim - 1}; got {direction!r}")
        ends = []
        for step in (-disp, disp):
            place = self.coords
            place[direction] += step
            ends.append(self.grid.rank(place))
        return ends[0], ends[1]

    def Sub(self, remain_dims: Sequence[bool]) -> Any:
        """The grid of the dimensions that remain, through this rank; collective."""
        kept = [bool(remains) for remains in remain_dims]
        if len(kept) != self.ndim:
            raise ValueError(f"remain_dims must have {self.ndim} values, one per dimension; got {len(kept)}")
        dims = [length for length, remains in zip(self.dims, kept, strict=True) if remains]
        rings = [ring for ring, remains in zip(self.grid.periods, kept, strict=True) if remains]
        fixed = Grid(self.grid.dims, (True,) * self.ndim).rank(
            [0 if remains else at for at, remains in zip(self.coords, kept, strict=True)]
        )
        part = self.split(fixed, self.rank)
        return COMM_NULL if part is COMM_NULL else part.Create_cart(dims, rings)


def compute_dims(ranks: int, dims: int | Sequence[int]) -> list[int]:
    """Divide ranks over dimensions as evenly as possible, longest first; given lengths other than 0 are kept.

    >>> compute_dims(12, 2), compute_dims(6, [0, 3, 0])
    ([4, 3], [2, 3, 1])
    """
    lengths = [0] * dims if isinstance(dims, int) else [int(length) for length in dims]
    given = math.prod(length for length in lengths if length)
    if given < 1 or ranks % given:
        raise ValueError(f"{ranks} ranks cannot be divided over dims {lengths}")
    free = lengths.count(0)
    if not free and given != ranks:
        raise ValueError(f"dims {lengths} hold {given} ranks; there are {ranks}")
    best = min(_factorings(ranks // given, free), key=lambda found: found[0] - found[-1]) if free else ()
    rest = iter(best)
    return [length or next(rest) for length in lengths]


def _factorings(number: int, parts: int, largest: int | None = None) -> list[tuple[int, ...]]:
    """Every way to write a number as a product of so many factors, in descending order."""
    if parts == 1:
        return [(number,)] if largest is None or number <= largest else []
    found = []
    for factor in range(1, number + 1):
        if number % factor == 0 and (largest is None or factor <= largest):
            found += [(factor, *rest) for rest in _factorings(number // factor, parts - 1, factor)]
    return found


part_classes["grid"] = Cartcomm
