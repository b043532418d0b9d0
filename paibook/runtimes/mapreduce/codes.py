"""Codes: numbers for objects that are met again and again, in the order in which they first came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy


class Codes(dict[Any, int]):
    """Hashable objects and their numbers; a new one gets the next number when it is asked for."""

    def __missing__(self, key: Any) -> int:
        code = self[key] = len(self)
        return code

    def of(self, values: Sequence[Any]) -> numpy.ndarray[Any, numpy.dtype[numpy.int32]]:
        """The numbers of some objects.

        Raises:
            TypeError: One cannot be hashed.
        """
        return numpy.fromiter(map(self.__getitem__, values), numpy.int32, len(values))
