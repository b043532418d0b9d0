"""Where the keys looked up last lie: a push mostly follows a pull of the same keys, and need not look them up again."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_SETS = 16
MAX_BYTES = 8 << 20

Keys = NDArray[np.int64]


@dataclass
class Lookup:
    """One set of keys.

    Attributes:
        keys: As they came.
        places: Of all of them; none is missing, none on disk.
        distinct: Whether no key occurs twice, as far as is known.
    """

    keys: Keys
    places: Keys
    distinct: bool

    @property
    def nbytes(self) -> int:
        """What it takes."""
        return self.keys.nbytes + self.places.nbytes


class Lookups:
    """The last sets: at most ``MAX_SETS``, of ``MAX_BYTES`` in all.

    A set is known again by the array that holds it, which must not change. Whoever moves or deletes a row forgets all
    of them; a new row changes none, as no set has a key without a place.
    """

    def __init__(self) -> None:
        self._found: OrderedDict[int, Lookup] = OrderedDict()
        self.nbytes = 0

    def get(self, keys: Keys) -> Lookup | None:
        """What is known of this very array."""
        known = self._found.get(id(keys))
        if known is not None:
            self._found.move_to_end(id(keys))
        return known

    def add(self, keys: Keys, places: Keys, distinct: bool) -> None:
        """Remember where keys lie, and forget the sets used longest ago that are too many now."""
        lookup = Lookup(keys, places, distinct)
        if lookup.nbytes > MAX_BYTES:
            return
        self._found[id(keys)] = lookup  # it holds the array, so no other can come to have its id
        self.nbytes += lookup.nbytes
        while len(self._found) > MAX_SETS or self.nbytes > MAX_BYTES:
            self.nbytes -= self._found.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        """Rows have moved."""
        self._found.clear()
        self.nbytes = 0
