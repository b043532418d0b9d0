"""Values of one key that are more than memory holds: a sequence that lies on disk."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from paibook.runtimes.mapreduce.memory import size_of_items
from paibook.runtimes.mapreduce.runs import BlockFile, Spills

FAN_IN = 16  # sorted parts merged at once
PARTS = 64  # blocks in a budget


class SpilledValues(Sequence[Any]):
    """Values on disk, read again each time they are gone through; one block is in memory at a time.

    They are valid until the next key is asked for; pickled, they become a list.

    Args:
        folder: Where their file goes.
        budget: Bytes of Python objects that sorting them may hold; a block has a small part of it.
        spills: Counts what is written.
    """

    def __init__(self, folder: Path, budget: int, spills: Spills) -> None:
        self._folder, self._budget, self._spills = folder, budget, spills
        self._file = BlockFile(folder, spills)
        self._starts: list[int] = []  # the number of each block's first value
        self._places: list[int] = []  # where in the file each block begins
        self._length = 0
        self._memory = 0

    def extend(self, values: list[Any]) -> None:
        """Add some at the end.

        Raises:
            DataError: The disk is full.
        """
        if not values:
            return
        memory = size_of_items(values) + 8 * len(values)
        self._memory += memory
        step = max(1, len(values) * self._budget // PARTS // max(1, memory))
        for start in range(0, len(values), step):
            block = values[start : start + step]
            self._starts.append(self._length)
            self._places.append(self._file.tell())
            self._file.append(block)
            self._length += len(block)

    def close(self) -> None:
        """Remove the file."""
        self._file.remove()

    def sorted(self, order: Callable[[Any], Any]) -> SpilledValues:
        """The values by ``order(value)``, on disk again; equal ones keep their order. These here are removed.

        Raises:
            DataError: The disk is full.
            Exception: Whatever ``order`` raises.
        """
        parts: list[SpilledValues] = []
        values = iter(self)
        # A third, since sorting holds what ``order`` makes of the values as well.
        step = max(1, self._length * (self._budget // 3) // max(1, self._memory))
        while part := sorted(islice(values, step), key=order):
            parts.append(self._beside(part))
        while len(parts) > 1:  # neighbours are merged, so that equal values keep their order
            parts = [self._merged(parts[i : i + FAN_IN], order) for i in range(0, len(parts), FAN_IN)]
        self.close()
        return parts[0] if parts else self

    def _merged(self, parts: list[SpilledValues], order: Callable[[Any], Any]) -> SpilledValues:
        if len(parts) == 1:
            return parts[0]
        merged = self._beside(heapq.merge(*parts, key=order))
        for part in parts:
            part.close()
        return merged

    def _beside(self, values: Iterable[Any]) -> SpilledValues:
        made = SpilledValues(self._folder, self._budget, self._spills)
        values = iter(values)
        step = max(1, self._length * (self._budget // PARTS) // max(1, self._memory))
        while block := list(islice(values, step)):
            made.extend(block)
        return made

    @property
    def memory(self) -> int:
        """Bytes they would take as Python objects, roughly."""
        return self._memory

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        for (block,) in self._file.blocks():
            yield from block

    def __reversed__(self) -> Iterator[Any]:
        for number in range(len(self._starts) - 1, -1, -1):
            yield from reversed(self._block(number))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            first, end, step = index.indices(self._length)
            if step > 0:
                return list(islice(self._from(first), 0, max(0, end - first), step))
            return [self[number] for number in range(first, end, step)]
        number = index + self._length if index < 0 else index
        if not 0 <= number < self._length:
            raise IndexError(f"values have no place {index}: there are {self._length}")
        return next(self._from(number))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (list, SpilledValues)):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{self._length} values on disk>"

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)

    def _block(self, number: int) -> list[Any]:
        (block,) = next(self._file.blocks(self._places[number]))
        values: list[Any] = block
        return values

    def _from(self, number: int) -> Iterator[Any]:
        if number >= self._length:
            return iter(())
        block = bisect_right(self._starts, number) - 1
        rest = self._file.blocks(self._places[block])
        return islice(chain.from_iterable(values for (values,) in rest), number - self._starts[block], None)


def in_order(values: Sequence[Any], order: Callable[[Any], Any]) -> Sequence[Any]:
    """The values of a key by ``order(value)``, equal ones as they stood; on disk again where they lie there.

    Raises:
        Exception: Whatever ``order`` raises.
    """
    return values.sorted(order) if isinstance(values, SpilledValues) else sorted(values, key=order)
