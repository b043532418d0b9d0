"""Partitions: which reducer a key belongs to, the same in every process.

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
from collections.abc import Collection, Hashable
from typing import Any
from zlib import crc32

import numpy

_MASK = (1 << 64) - 1
_MIX = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: spreads neighbouring numbers, as in Knuth's multiplicative hashing
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def partitions_of(keys: Collection[Hashable], count: int) -> list[int]:
    """The partition of each key, 0 to ``count - 1``.

    Raises:
        TypeError: A key that equals nothing but itself, so that it could never meet another; says what to do.
    """
    if count == 1:
        return [0] * len(keys)
    return [number % count for number in _hashes(keys)]


def _hashes(keys: Collection[Any]) -> list[int]:
    """``stable_hash`` of each key; column by column where the keys are tuples of one length."""
    kinds = set(map(type, keys))
    if kinds == {str}:
        return [crc32(key.encode("utf-8", "surrogatepass")) for key in keys]
    if kinds == {tuple}:
        widths = set(map(len, keys))
        if len(widths) == 1 and widths != {0}:
            width = widths.pop()
            totals = numpy.full(len(keys), width, numpy.uint64)
            for column in zip(*keys, strict=True):
                totals = (totals ^ numpy.array(_hashes(column), numpy.uint64)) * numpy.uint64(_MIX)
                totals ^= totals >> numpy.uint64(29)
            hashes: list[int] = ((totals >> numpy.uint64(16)) & numpy.uint64(0xFFFFFFFF)).tolist()
            return hashes
    return [stable_hash(key) for key in keys]


def stable_hash(key: Any) -> int:
    """A number of 32 bits that is equal for equal keys, whatever process made them.

    >>> stable_hash(1) == stable_hash(1.0) == stable_hash(True)
    True
    """
    if isinstance(key, str):
        return crc32(key.encode("utf-8", "surrogatepass"))
    if isinstance(key, (bytes, bytearray)):
        return crc32(key)
    if isinstance(key, tuple):
        return _combined(map(stable_hash, key), len(key))
    if isinstance(key, numbers.Number):
        # Python hashes numbers by value, without a seed; except NaN, which it hashes by identity.
        return _mixed(hash(key)) if key == key else 1
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
    if type(key).__module__ == "numpy" and hasattr(key, "item"):
        return _text(str(key)) if key.dtype.kind in "mM" else stable_hash(key.item())
    if _has_generated_equality(key):
        fields = [f.name for f in dataclasses.fields(key) if f.compare]
        return _combined((stable_hash(getattr(key, name)) for name in fields), _text(type(key).__qualname__))
    return _hash_of_class(key)


def _hash_of_time(key: Any) -> int:
    if isinstance(key, datetime.datetime):
        if key.utcoffset() is not None:
            return _mixed((key - _EPOCH) // datetime.timedelta(microseconds=1))
        return _text(str(key.replace(fold=0))[:26])
    if isinstance(key, datetime.timedelta):
        return _mixed(key // datetime.timedelta(microseconds=1))
    if isinstance(key, datetime.time):
        # Times with offsets are equal by instant; rare enough to share one partition.
        return 2 if key.utcoffset() is not None else _text(str(key.replace(fold=0)))
    return _text(key.isoformat())


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
    return ((number * _MIX) & _MASK) >> 32


def _combined(hashes: Any, seed: int) -> int:
    total = seed
    for value in hashes:
        total = ((total ^ value) * _MIX) & _MASK
        total ^= total >> 29
    return total >> 16 & 0xFFFFFFFF
