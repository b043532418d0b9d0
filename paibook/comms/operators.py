"""Reduction operators and the special arguments of MPI's operations, under mpi4py's names."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

ANY_SOURCE = -1
ANY_TAG = -1
PROC_NULL = -2  # the rank that is not there: sending to it and receiving from it do nothing
UNDEFINED = -32766

Array = NDArray[Any]
Pairwise = Callable[[Any, Any], Any]


class InPlace(enum.Enum):
    """The argument that says "my part is already in the other buffer"."""

    IN_PLACE = enum.auto()


class Operator:
    """An associative operation on two values, elementwise on arrays.

    Args:
        name: MPI's.
        pairwise: Combines two objects.
        arrays: Combines two arrays of one dtype and length into a new one.
        commutes: Whether the order of the two is irrelevant.
        predefined: Whether it is one of MPI's own.
    """

    def __init__(
        self, name: str, pairwise: Pairwise, arrays: Pairwise, commutes: bool = True, predefined: bool = True
    ) -> None:
        self.name = name
        self._pairwise = pairwise
        self._arrays = arrays
        self.is_commutative = commutes
        self.is_predefined = predefined

    @classmethod
    def Create(cls, function: Callable[[Any, Any, Any], Any], commute: bool = False) -> Operator:
        """Make an operator of a function.

        Args:
            function: Called ``function(left, right, datatype)``. On buffers, ``left`` and ``right`` are memory and
                the result is written into ``right`` (see ``numpy.frombuffer``); on objects the result is returned
                and ``datatype`` is None. The lower rank's part is always ``left``.
            commute: Whether the order of the two is irrelevant.
        """

        def arrays(left: Array, right: Array) -> Array:
            result = right.copy()
            function(memoryview(left).cast("B"), memoryview(result).cast("B"), result.dtype)  # type: ignore[arg-type]
            return result

        name = getattr(function, "__name__", "operator")
        return cls(name, lambda left, right: function(left, right, None), arrays, commute, predefined=False)

    def Is_commutative(self) -> bool:
        """Whether the order of the two is irrelevant."""
        return self.is_commutative

    def Is_predefined(self) -> bool:
        """Whether it is one of MPI's own."""
        return self.is_predefined

    def Free(self) -> None:
        """Nothing to do here; programs written for MPI call it."""

    def __call__(self, left: Any, right: Any) -> Any:
        """Combine two objects: numbers, arrays, or anything with the operator's Python equivalent."""
        return self._pairwise(left, right)

    @property
    def ufunc(self) -> Any:
        """What combines arrays: a NumPy ufunc where there is one."""
        return self._arrays

    def arrays(self, left: Array, right: Array) -> Array:
        """Combine two arrays of one dtype and length into a new one of that dtype; neither is changed."""
        combined: Array = np.asarray(self._arrays(left, right))
        return combined if combined.dtype == left.dtype else combined.astype(left.dtype)

    def __repr__(self) -> str:
        return f"<operator {self.name}>"

    def __reduce__(self) -> Any:
        # The predefined ones are told by identity, also after a journey.
        return (_named, (self.name,)) if self.is_predefined else object.__reduce__(self)


IN_PLACE = InPlace.IN_PLACE


def combine(op: Combine, values: Sequence[Any]) -> Any:
    """Reduce values from the first to the last, so that every rank gets the same bits."""
    return reduce(op, values)


def fold(op: Operator, parts: Sequence[Array]) -> Array:
    """Reduce arrays elementwise from the first to the last.

    Raises:
        ValueError: They are not of one length.
    """
    for part in parts[1:]:
        if part.size != parts[0].size:
            raise ValueError(f"ranks gave buffers of different lengths: {parts[0].size} and {part.size}")
    return parts[0].copy() if len(parts) == 1 else reduce(op.arrays, parts)


def _elementwise(function: np.ufunc, plain: Pairwise) -> Pairwise:
    def pairwise(left: Any, right: Any) -> Any:
        arrays = any(isinstance(value, np.ndarray) for value in (left, right))
        return function(left, right) if arrays else plain(left, right)

    return pairwise


def _located(name: str, better: Callable[[Any, Any], Any]) -> Operator:
    """MAXLOC or MINLOC: of two (value, index) pairs the one with the better value; of equal ones the lower index."""

    def pairwise(left: Any, right: Any) -> Any:
        try:
            (value, index), (other, other_index) = left, right
        except (TypeError, ValueError):
            raise TypeError(f"{name} combines (value, index) pairs; got {left!r} and {right!r}") from None
        if better(value, other):
            return value, index
        if better(other, value):
            return other, other_index
        return value, min(index, other_index)

    def arrays(left: Array, right: Array) -> Array:
        fields = left.dtype.names or ()
        if len(fields) != 2:
            raise TypeError(
                f"{name} combines (value, index) pairs: give arrays of two fields, such as "
                f"np.zeros(n, MPI.DOUBLE_INT.dtype); got {left.dtype}"
            )
        value, index = fields
        lower = (right[value] == left[value]) & (right[index] < left[index])
        return np.where(better(right[value], left[value]) | lower, right, left)

    return Operator(name, pairwise, arrays)


SUM = Operator("SUM", lambda left, right: left + right, np.add)
PROD = Operator("PROD", lambda left, right: left * right, np.multiply)
MIN = Operator("MIN", _elementwise(np.minimum, lambda left, right: right if right < left else left), np.minimum)
MAX = Operator("MAX", _elementwise(np.maximum, lambda left, right: right if right > left else left), np.maximum)
LAND = Operator("LAND", _elementwise(np.logical_and, lambda left, right: bool(left) and bool(right)), np.logical_and)
LOR = Operator("LOR", _elementwise(np.logical_or, lambda left, right: bool(left) or bool(right)), np.logical_or)
LXOR = Operator("LXOR", _elementwise(np.logical_xor, lambda left, right: bool(left) != bool(right)), np.logical_xor)
BAND = Operator("BAND", lambda left, right: left & right, np.bitwise_and)
BOR = Operator("BOR", lambda left, right: left | right, np.bitwise_or)
BXOR = Operator("BXOR", lambda left, right: left ^ right, np.bitwise_xor)
MAXLOC = _located("MAXLOC", lambda left, right: left > right)
MINLOC = _located("MINLOC", lambda left, right: left < right)

PREDEFINED = {op.name: op for op in (SUM, PROD, MIN, MAX, LAND, LOR, LXOR, BAND, BOR, BXOR, MAXLOC, MINLOC)}
Combine = Operator | Callable[[Any, Any], Any]


def _named(name: str) -> Operator:
    return PREDEFINED[name]
