"""Grids of ranks: who is where."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from paibook.comms.operators import PROC_NULL


@dataclass(frozen=True)
class Grid:
    """A grid of ranks, in row-major order.

    Attributes:
        dims: Length of each dimension.
        periods: Whether each is a ring.
    """

    dims: tuple[int, ...]
    periods: tuple[bool, ...]

    @classmethod
    def of(cls, dims: Sequence[int], periods: Sequence[bool] | bool | None, ranks: int) -> Grid:
        """Check a grid for so many ranks.

        Raises:
            ValueError: It has more places than there are ranks, or not one period per dimension.
        """
        lengths = tuple(int(length) for length in dims)
        if isinstance(periods, (bool, int)) or periods is None:
            periods = [bool(periods)] * len(lengths)
        if len(periods) != len(lengths):
            raise ValueError(f"periods must have {len(lengths)} values, one per dimension; got {len(periods)}")
        if any(length < 1 for length in lengths) or math.prod(lengths) > ranks:
            raise ValueError(f"dims must be a grid of at most {ranks} places; got {list(dims)}")
        return cls(lengths, tuple(bool(period) for period in periods))

    @property
    def size(self) -> int:
        """How many places it has."""
        return math.prod(self.dims)

    def coordinates(self, rank: int) -> list[int]:
        """Where a rank is."""
        place = []
        for length in reversed(self.dims):
            rank, coordinate = divmod(rank, length)
            place.append(coordinate)
        return place[::-1]

    def rank(self, coordinates: Sequence[int]) -> int:
        """Who is there: ``PROC_NULL`` outside a dimension that is no ring."""
        rank = 0
        for coordinate, length, ring in zip(coordinates, self.dims, self.periods, strict=True):
            if not ring and not 0 <= coordinate < length:
                return PROC_NULL
            rank = rank * length + coordinate % length
        return rank
