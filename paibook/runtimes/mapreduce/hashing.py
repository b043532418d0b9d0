"""Hashing: a number of 32 bits for a key, the same in every process.

Python's own ``hash`` differs between processes for text, so equal keys would not meet; this one follows Python's
equality (``1 == 1.0 == True``, a ``str`` subclass equals its text) without the per-process seed.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import numbers
import pathlib
import uuid
from collections.abc import Iterable
from typing import Any
from zlib import crc32

import numpy

_MASK = (1 << 64) - 1
MIX = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: spreads neighbouring numbers, as in Knuth's multiplicative hashing
HASH_OF_NAN = 1
DAY = 86_400_000_000  # microseconds
EPOCH = datetime.date(1970, 1, 1).toordinal()
_AWARE_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_NAIVE_EPOCH = datetime.datetime(1970, 1, 1)
_MICROSECOND = datetime.timedelta(microseconds=1)


def stable_hash(key: Any) -> int:
    """A number of 32 bits that is equal for equal keys, whatever process made them.

    Raises:
        TypeError: A key that equals nothing but itself, so that it could never meet another; says what to do.

    >>> stable_hash(1) == stable_hash(1.0) == stable_hash(True)
    True
    """
    if isinstance(key, str):
        return crc32(key.encode("utf-8", "surrogatepass"))
    if isinstance(key, (bytes, bytearray)):
        return crc32(key)
    if isinstance(key, tuple):
        return _combined(map(stable_hash, key), len(key))
    if isinstance(key, numbers.Number) and not isinstance(key, numpy.timedelta64):  # which numpy takes for a number
        # Python hashes numbers by value, without a seed; except NaN, which it hashes by identity.
        return _mixed(hash(key)) if key == key else HASH_OF_NAN
    if isinstance(key, frozenset):
        return _mixed(sum(map(stable_hash, key)))
    return _hash_of_other(key)


def _hash_of_other(key: Any) -> int:
    if key is None or key is ...:
        return _text(repr(key))
    if isinstance(key, (type, type(_text), type(len))):
        return _text(f"{key.__module__}.{key.__qualname__}")
    if isinstance(key, enum.Enum):  # members are singletons; a flag's combinations have no name
        return _text(f"{type(key).__qualname__}.{key.value if isinstance(key, enum.Flag) else key.name}")
    if isinstance(key, datetime.date | datetime.time | datetime.timedelta):
        return _hash_of_time(key)
    if isinstance(key, uuid.UUID):
        return _mixed(key.int & _MASK)
    if isinstance(key, pathlib.PurePath):
        return _text(str(key) if isinstance(key, pathlib.PurePosixPath) else str(key).lower())
    if isinstance(key, (numpy.datetime64, numpy.timedelta64)):
        return _hash_of_numpy_time(key)
    if isinstance(key, numpy.generic):
        return stable_hash(key.item())
    if _has_generated_equality(key):
        fields = [f.name for f in dataclasses.fields(key) if f.compare]
        return _combined((stable_hash(getattr(key, name)) for name in fields), _text(type(key).__qualname__))
    return _hash_of_class(key)


def _hash_of_time(key: Any) -> int:
    """Dates and times by their microseconds, which columns of them have at hand."""
    if isinstance(key, datetime.datetime):
        naive = key.utcoffset() is None
        return _mixed((key.replace(tzinfo=None) - _NAIVE_EPOCH if naive else key - _AWARE_EPOCH) // _MICROSECOND)
    if isinstance(key, datetime.timedelta):
        return _mixed(key // _MICROSECOND)
    if isinstance(key, datetime.time):
        # Times with offsets are equal by instant; rare enough to share one partition.
        return 2 if key.utcoffset() is not None else _text(str(key.replace(fold=0)))
    return _mixed((key.toordinal() - EPOCH) * DAY)


def _hash_of_numpy_time(key: Any) -> int:
    # In days and in microseconds the same date is equal; months and years of a span have no length in microseconds.
    try:
        return _mixed(int(key.astype(f"{key.dtype.kind}8[us]").astype("i8")))
    except TypeError:
        return _text(str(key))


def _hash_of_class(key: Any) -> int:
    """All keys of a class with an equality of its own go to one partition: only the class knows which are equal."""
    for owner in type(key).__mro__:
        if "__eq__" in vars(owner):
            if owner is object:
                break
            return _text(f"{owner.__module__}.{owner.__qualname__}")
    raise TypeError(
        f"keys of type {type(key).__name__} equal only themselves, so two of them never meet in one reduce; use a "
        "str, a number or a tuple of them, or make the class a dataclass(frozen=True)"
    )


def _has_generated_equality(key: Any) -> bool:
    if not dataclasses.is_dataclass(key) or isinstance(key, type):
        return False
    code = getattr(type(key).__eq__, "__code__", None)
    return code is not None and code.co_filename == "<string>"  # where dataclasses compiles what it generates


def _text(text: str) -> int:
    return crc32(text.encode("utf-8", "surrogatepass"))


def _mixed(number: int) -> int:
    return ((number * MIX) & _MASK) >> 32


def _combined(hashes: Iterable[int], seed: int) -> int:
    total = seed
    for value in hashes:
        total = ((total ^ value) * MIX) & _MASK
        total ^= total >> 29
    return total >> 16 & 0xFFFFFFFF
