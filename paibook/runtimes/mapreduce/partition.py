"""Partitions: which reducer a key belongs to, the same in every process; column by column where keys are alike."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import Any
from zlib import crc32

import numpy

from paibook.runtimes.mapreduce.hashing import HASH_OF_NAN, MIX, stable_hash
from paibook.runtimes.mapreduce.sampling import is_repetitive

__all__ = ["combined_hashes", "float_hashes", "hashes_of", "integer_hashes", "partitions_of", "stable_hash"]

Hashes = numpy.ndarray[Any, numpy.dtype[numpy.uint32]]
CHUNK = 1 << 16  # numbers hashed at once: what stays in a core's cache
_PRIME = (1 << 61) - 1  # Python hashes numbers modulo this


def partitions_of(keys: Collection[Hashable], count: int) -> list[int]:
    """The partition of each key, 0 to ``count - 1``.

    Raises:
        TypeError: A key that equals nothing but itself, so that it could never meet another; says what to do.
    """
    if count == 1:
        return [0] * len(keys)
    numbers: list[int] = (hashes_of(keys) % numpy.uint32(count)).tolist()
    return numbers


def hashes_of(keys: Collection[Any]) -> Hashes:
    """``stable_hash`` of each key.

    Raises:
        TypeError: As ``stable_hash`` does.
    """
    values: Sequence[Any] = keys if isinstance(keys, (list, tuple)) else list(keys)
    kinds = set(map(type, values))
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind is tuple:
        widths = set(map(len, values))
        if len(widths) == 1 and widths != {0}:
            return combined_hashes([hashes_of(column) for column in zip(*values, strict=True)])
    elif kind is float:
        return float_hashes(numpy.fromiter(values, numpy.float64, len(values)))
    elif kind is int:
        try:
            return integer_hashes(numpy.fromiter(values, numpy.int64, len(values)))
        except OverflowError:  # beyond 64 bits
            pass
    return _hashes_by(_text_hash if kind is str else stable_hash, values, kind is str)


def _hashes_by(function: Callable[[Any], int], values: Sequence[Any], are_texts: bool) -> Hashes:
    numbers: Iterable[int] = map(function, values)
    if is_repetitive(values):
        numbers = map(_Known(function).__getitem__, values)
    elif are_texts:
        try:
            return numpy.fromiter(map(crc32, map(str.encode, values)), numpy.uint32, len(values))
        except UnicodeEncodeError:  # lone surrogates
            pass
    return numpy.fromiter(numbers, numpy.uint32, len(values))


class _Known(dict[Any, int]):
    """Hashes of the keys met so far."""

    def __init__(self, function: Callable[[Any], int]) -> None:
        super().__init__()
        self._function = function

    def __missing__(self, key: Any) -> int:
        number = self[key] = self._function(key)
        return number


def _text_hash(text: str) -> int:
    return crc32(text.encode("utf-8", "surrogatepass"))


def integer_hashes(values: numpy.ndarray[Any, Any]) -> Hashes:
    """``stable_hash`` of whole numbers.

    Args:
        values: One dimension, of any whole type.
    """
    return _in_chunks(_integers, values)


def float_hashes(values: numpy.ndarray[Any, Any]) -> Hashes:
    """``stable_hash`` of floats, of one dimension: equal to that of the whole number where they are whole."""
    return _in_chunks(_floats, values)


def combined_hashes(columns: Sequence[Hashes]) -> Hashes:
    """``stable_hash`` of tuples, from those of their items.

    Args:
        columns: One for each place in the tuples, at least one, of equal lengths.
    """
    made = numpy.empty(len(columns[0]), numpy.uint32)
    for start in range(0, len(made), CHUNK):
        some = slice(start, start + CHUNK)
        totals = numpy.full(len(made[some]), len(columns), numpy.uint64)
        for column in columns:
            totals ^= column[some]
            totals *= numpy.uint64(MIX)
            totals ^= totals >> numpy.uint64(29)
        made[some] = (totals >> numpy.uint64(16)).astype(numpy.uint32)
    return made


def _in_chunks(function: Callable[[Any], Hashes], values: numpy.ndarray[Any, Any]) -> Hashes:
    made = numpy.empty(len(values), numpy.uint32)
    for start in range(0, len(values), CHUNK):
        made[start : start + CHUNK] = function(values[start : start + CHUNK])
    return made


def _integers(values: numpy.ndarray[Any, Any]) -> Hashes:
    if values.dtype == numpy.uint64:
        return _mixed((values % numpy.uint64(_PRIME)).astype(numpy.int64))
    whole = values.astype(numpy.int64)
    if values.dtype == numpy.int64 and (whole.max() >= _PRIME or whole.min() <= -_PRIME):
        whole = numpy.fmod(whole, _PRIME)  # Python's hash keeps the sign
    return _mixed(whole)


def _floats(values: numpy.ndarray[Any, Any]) -> Hashes:
    """As CPython hashes floats: the mantissa times a power of two, modulo a Mersenne prime, where that power is a
    rotation of 61 bits (Python documentation, Hashing of numeric types)."""
    finite = numpy.isfinite(values)
    mantissas, exponents = numpy.frexp(numpy.where(finite, values, 0).astype(numpy.float64))
    scaled = numpy.abs(mantissas) * 2.0**53
    rest = (exponents.astype(numpy.int64) - 53) % 61
    total = _rotated(scaled.astype(numpy.uint64), rest.astype(numpy.uint64))
    signed = numpy.where(mantissas < 0, -total.astype(numpy.int64), total.astype(numpy.int64))
    signed[numpy.isposinf(values)] = hash(float("inf"))
    signed[numpy.isneginf(values)] = hash(float("-inf"))
    made = _mixed(signed)
    made[numpy.isnan(values)] = HASH_OF_NAN
    return made


def _rotated(numbers: numpy.ndarray[Any, Any], places: numpy.ndarray[Any, Any]) -> numpy.ndarray[Any, Any]:
    turned = ((numbers << places) & numpy.uint64(_PRIME)) | (numbers >> (numpy.uint64(61) - places))
    turned[turned == _PRIME] = 0
    return turned


def _mixed(hashes: numpy.ndarray[Any, Any]) -> Hashes:
    hashes[hashes == -1] = -2  # as Python does, whose C functions return -1 for errors
    return ((hashes.view(numpy.uint64) * numpy.uint64(MIX)) >> numpy.uint64(32)).astype(numpy.uint32)
