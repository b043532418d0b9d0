"""Packing: lists of Python values as bytes, in columns where they are homogeneous.

Numbers leave as arrays as narrow as they allow, texts joined (or numbered, where few are repeated), equally long tuples
column by column; any other list is pickled. (``marshal`` is no faster than ``pickle`` once the types of all values have
been looked at, as they must be: it takes a subclass, or a numpy scalar, for something else.) Packing and unpacking give
equal values of the same types.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import cloudpickle
import numpy

from paibook.runtimes.mapreduce.codes import Codes
from paibook.runtimes.mapreduce.sampling import is_repetitive

_SEPARATOR = "\x00"
_INTEGERS = tuple(numpy.iinfo(code) for code in ("<i1", "<i2", "<i4", "<i8"))


def pack(values: Sequence[Any]) -> bytes:
    """A list as bytes.

    Raises:
        Exception: Whatever pickling a value raises.
    """
    return pickle.dumps(columns_of(values), protocol=5)


def unpack(content: bytes) -> list[Any]:
    """The list that ``pack`` was given."""
    return _values(pickle.loads(content))


def unpack_arrays(content: bytes) -> tuple[bool, list[numpy.ndarray[Any, Any]]]:
    """What ``pack`` was given as arrays: of objects, or of numbers whose ``tolist`` gives the same values.

    Returns:
        Whether the values are tuples, and an array for each of their places; else one array.
    """
    kind, *content_of = pickle.loads(content)
    if kind == "tuples":
        return True, [_array(place) for place in content_of[0]]
    return False, [_array((kind, *content_of))]


def columns_of(values: Sequence[Any]) -> tuple[Any, ...]:
    """What ``pack`` pickles: the kind of packing, and its content.

    Raises:
        Exception: Whatever pickling a value raises.
    """
    kinds = set(map(type, values))
    if len(kinds) != 1:
        return _pickled(values)
    kind = kinds.pop()
    if kind is int:
        return _integers(values)
    if kind is float:
        return ("numbers", "<f8", numpy.fromiter(values, "<f8", len(values)).tobytes())
    if kind is str:
        return _texts(values)
    if kind is tuple:
        widths = set(map(len, values))
        if len(widths) == 1 and widths != {0}:
            return _tuples(values, widths.pop())
    elif issubclass(kind, numpy.generic):
        if kind().dtype.kind in "biuf":
            numbers = numpy.array(values)
            return ("scalars", numbers.dtype.str, numbers.tobytes())
    elif kind is numpy.ndarray:
        return _arrays(values)
    return _pickled(values)


def _values(packed: tuple[Any, ...]) -> list[Any]:
    kind, *content = packed
    if kind == "texts":
        values: list[Any] = str(content[0], "utf-8", "surrogatepass").split(_SEPARATOR)
    elif kind == "numbers":
        values = numpy.frombuffer(content[1], content[0]).tolist()
    elif kind == "few":
        values = _array(packed).tolist()
    elif kind == "tuples":
        values = list(zip(*map(_values, content[0]), strict=True))
    elif kind == "constant":
        values = [content[0]] * content[1]
    elif kind == "scalars":
        values = list(numpy.frombuffer(content[1], content[0]))
    elif kind == "arrays":
        # Copied one by one: views of one block would keep all of it in memory as long as one of them lives.
        values = [row.copy() for row in numpy.frombuffer(content[2], content[0]).reshape(content[1])]
    else:
        values = pickle.loads(content[0])
    return values


def _tuples(values: Sequence[Any], width: int) -> tuple[Any, ...]:
    # Place by place: zip(*values) would hold an iterator for each of them.
    return ("tuples", [columns_of(list(map(itemgetter(place), values))) for place in range(width)])


def _array(packed: tuple[Any, ...]) -> numpy.ndarray[Any, Any]:
    kind, *content = packed
    if kind == "numbers":
        return numpy.frombuffer(content[1], content[0])
    if kind == "constant":
        return numpy.full(content[1], content[0], "<i8")
    if kind == "few":
        different = _values(content[0])
        objects = numpy.fromiter(different, object, len(different))
        return objects[numpy.frombuffer(content[2], content[1])]
    values = _values(packed)
    return numpy.fromiter(values, object, len(values))


def _integers(values: Sequence[int]) -> tuple[Any, ...]:
    try:
        numbers = numpy.fromiter(values, "<i8", len(values))
    except OverflowError:  # beyond 64 bits
        return _pickled(values)
    if numbers.min() == numbers.max():
        return ("constant", values[0], len(values))
    return ("numbers", *narrow(numbers))


def narrow(numbers: numpy.ndarray[Any, Any]) -> tuple[str, bytes]:
    """The type that is just wide enough, and the numbers in it."""
    least, greatest = numbers.min(), numbers.max()
    code = next(info.dtype.str for info in _INTEGERS if info.min <= least and greatest <= info.max)
    return code, numbers.astype(code).tobytes()


def _texts(values: Sequence[str]) -> tuple[Any, ...]:
    if is_repetitive(values):
        codes = Codes()
        numbers = codes.of(values)
        return ("few", joined_texts(list(codes)), *narrow(numbers))
    return joined_texts(values)


def joined_texts(values: Sequence[str]) -> tuple[Any, ...]:
    """Texts in one, packed."""
    joined = _SEPARATOR.join(values)
    if joined.count(_SEPARATOR) != len(values) - 1:
        return _pickled(values)
    return ("texts", joined.encode("utf-8", "surrogatepass"))


def _arrays(values: Sequence[Any]) -> tuple[Any, ...]:
    forms = {(array.dtype, array.shape) for array in values}
    dtype, shape = next(iter(forms))
    if len(forms) > 1 or not shape or dtype.kind not in "biufc":
        return _pickled(values)
    stacked = numpy.stack(values).astype(dtype)  # stacking may turn the order of bytes round
    return ("arrays", dtype.str, (len(values), *shape), stacked.tobytes())


def _pickled(values: Sequence[Any]) -> tuple[Any, ...]:
    values = list(values)
    try:
        return ("pickle", pickle.dumps(values, protocol=5))
    except (pickle.PicklingError, AttributeError, TypeError):  # lambdas, local classes
        return ("pickle", cloudpickle.dumps(values, protocol=5))
