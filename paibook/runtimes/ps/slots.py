"""Numbers of rows, in memory or on disk: which are free, and what is known of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Slots = NDArray[np.int64]
_STOCK = 1 << 12  # slots never used that are put among the free ones at once


class SlotPool:
    """Gives out slots and takes them back.

    Args:
        columns: Name and type of what is noted of each slot; all but "key" are -1 while it is free.

    Attributes:
        columns: Name to array, an element for each slot.
        capacity: Slots there are.
        end: Slots from here on were never given out.
        left: Slots at the end of the stock of free ones.
    """

    def __init__(self, columns: Mapping[str, DTypeLike]) -> None:
        self.columns: dict[str, NDArray[Any]] = {name: np.empty(0, kind) for name, kind in columns.items()}
        self.capacity = 0
        self.end = 0
        self.left = 0
        self._stock = np.empty(0, np.int64)

    def __len__(self) -> int:
        """Slots in use."""
        return self.end - self.left

    @property
    def free(self) -> int:
        """Slots that can be given out before it has to grow."""
        return self.capacity - len(self)

    @property
    def slot_bytes(self) -> int:
        """Bytes of what is noted of a slot."""
        return sum(column.dtype.itemsize for column in self.columns.values())

    @property
    def nbytes(self) -> int:
        """Bytes of what is noted of the slots in use, and of the stock."""
        return self.end * self.slot_bytes + int(self._stock.nbytes)

    def grow(self, capacity: int) -> None:
        """Have more slots."""
        for name, column in self.columns.items():
            grown = np.zeros(capacity, column.dtype)
            grown[: self.end] = column[: self.end]
            self.columns[name] = grown
        self.capacity = capacity

    def stock(self, count: int) -> tuple[Slots, int]:
        """The stock of free slots and how many it holds, at least ``count``; its taker sets ``left``."""
        if self.left < count:
            fresh = min(max(count - self.left, _STOCK), self.capacity - self.end)
            self._reserve(self.left + fresh)
            # Descending, so that the smallest is taken first.
            self._stock[self.left : self.left + fresh] = np.arange(self.end + fresh - 1, self.end - 1, -1)
            for name, column in self.columns.items():
                if name != "key":
                    column[self.end : self.end + fresh] = -1
            self.end += fresh
            self.left += fresh
        return self._stock, self.left

    def take(self, count: int) -> Slots:
        """Slots for so many rows."""
        stock, left = self.stock(count)
        self.left = left - count
        return stock[self.left : left][::-1].copy()

    def give(self, slots: Slots) -> None:
        """Take slots back."""
        self._reserve(self.left + len(slots))
        self._stock[self.left : self.left + len(slots)] = slots
        self.left += len(slots)
        for name, column in self.columns.items():
            if name != "key":
                column[slots] = -1

    def note(self, slots: Slots, **values: Any) -> None:
        """Write down what is known of slots, where there is a column for it."""
        for name, value in values.items():
            if name in self.columns:
                self.columns[name][slots] = value

    def copy(self, slots: Slots, other: SlotPool, theirs: Slots) -> None:
        """Write down what another pool knows of its slots."""
        for name, column in self.columns.items():
            column[slots] = other.columns[name][theirs]

    def live(self, name: str) -> Slots:
        """The slots in use, by a column that is -1 for the others."""
        return np.flatnonzero(self.columns[name][: self.end] >= 0)

    def _reserve(self, count: int) -> None:
        if count > len(self._stock):
            larger = np.empty(max(count, 2 * len(self._stock)), np.int64)
            larger[: self.left] = self._stock[: self.left]
            self._stock = larger
