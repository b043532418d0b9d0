"""A batch: some records of one source, and a way to say where each of them stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Batch:
    """Records that lie one after the other in one source.

    Attributes:
        records: The records, in order.
        place: Says where the record of an index in ``records`` stands, such as ``"a.txt, line 7"``. It may read the
            source again: places cost nothing until something goes wrong.
    """

    records: list[Any]
    place: Callable[[int], str]

    def cut(self, start: int, stop: int) -> Batch:
        """The records from one index to another."""
        if start == 0 and stop >= len(self.records):
            return self
        return Batch(self.records[start:stop], lambda index: self.place(start + index))
