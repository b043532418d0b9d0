"""Packing: lists of Python values as bytes, in columns where they are homogeneous.

Lists of int, float or str, and of equally long tuples of these, leave as arrays; any other list is pickled. Packing and
unpacking give equal values of the same types.
"""

from __future__ import annotations

import pickle
from array import array
from collections.abc import Sequence
from typing import Any

import cloudpickle

_NUMBERS: dict[type, str] = {int: "q", float: "d"}
_SEPARATOR = "\x00"


def pack(values: Sequence[Any]) -> bytes:
    """A list as bytes.

    Raises:
        Exception: Whatever pickling a value raises.
    """
    return pickle.dumps(_columns(values), protocol=5)


def unpack(content: bytes) -> list[Any]:
    """The list that ``pack`` was given."""
    return _values(pickle.loads(content))


def _columns(values: Sequence[Any]) -> tuple[str, Any]:
    kinds = set(map(type, values))
    if len(kinds) != 1:
        return ("pickle", _pickled(values))
    kind = kinds.pop()
    if kind in _NUMBERS:
        try:
            code = _NUMBERS[kind]
            return (code, array(code, values).tobytes())
        except OverflowError:  # beyond 64 bits
            return ("pickle", _pickled(values))
    if kind is str:
        joined = _SEPARATOR.join(values)
        if joined.count(_SEPARATOR) == len(values) - 1:
            return ("str", joined.encode("utf-8", "surrogatepass"))
    elif kind is tuple:
        lengths = set(map(len, values))
        if len(lengths) == 1 and lengths != {0}:
            return ("tuple", [_columns(column) for column in zip(*values, strict=True)])
    return ("pickle", _pickled(values))


def _pickled(values: Sequence[Any]) -> bytes:
    values = list(values)
    try:
        return pickle.dumps(values, protocol=5)
    except (pickle.PicklingError, AttributeError, TypeError):  # lambdas, local classes
        return cloudpickle.dumps(values, protocol=5)


def _values(packed: tuple[str, Any]) -> list[Any]:
    kind, content = packed
    if kind == "pickle":
        values: list[Any] = pickle.loads(content)
        return values
    if kind == "str":
        return str(content, "utf-8", "surrogatepass").split(_SEPARATOR)
    if kind == "tuple":
        return list(zip(*map(_values, content), strict=True))
    numbers: array[Any] = array(kind)
    numbers.frombytes(content)
    return numbers.tolist()
