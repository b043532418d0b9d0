"""Reduction operators and the special arguments of MPI's operations, under mpi4py's names."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

ANY_SOURCE = -1
ANY_TAG = -1


class InPlace(enum.Enum):
    """The argument that says "my part is already in the other buffer"."""

    IN_PLACE = enum.auto()


class Operator(enum.Enum):
    """An associative, commutative operation on two values, elementwise on arrays."""

    SUM = "sum"
    PROD = "product"
    MIN = "minimum"
    MAX = "maximum"
    LAND = "logical and"
    LOR = "logical or"

    def __call__(self, left: Any, right: Any) -> Any:
        """Combine two objects: numbers, arrays, or anything with the operator's Python equivalent."""
        return _PAIRWISE[self](left, right)


IN_PLACE = InPlace.IN_PLACE
SUM, PROD, MIN, MAX, LAND, LOR = Operator

Combine = Operator | Callable[[Any, Any], Any]


def combine(op: Combine, values: Sequence[Any]) -> Any:
    """Reduce values from the first to the last, so that every rank gets the same bits."""
    return reduce(op, values)


def _elementwise(function: Callable[[Any, Any], Any], plain: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def pairwise(left: Any, right: Any) -> Any:
        arrays = any(isinstance(value, np.ndarray) for value in (left, right))
        return function(left, right) if arrays else plain(left, right)

    return pairwise


_PAIRWISE: dict[Operator, Callable[[Any, Any], Any]] = {
    SUM: lambda left, right: left + right,
    PROD: lambda left, right: left * right,
    MIN: _elementwise(np.minimum, lambda left, right: right if right < left else left),
    MAX: _elementwise(np.maximum, lambda left, right: right if right > left else left),
    LAND: _elementwise(np.logical_and, lambda left, right: bool(left) and bool(right)),
    LOR: _elementwise(np.logical_or, lambda left, right: bool(left) or bool(right)),
}
UFUNCS: dict[Operator, np.ufunc] = {
    SUM: np.add,
    PROD: np.multiply,
    MIN: np.minimum,
    MAX: np.maximum,
    LAND: np.logical_and,
    LOR: np.logical_or,
}
