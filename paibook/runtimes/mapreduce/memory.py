"""Memory: what Python objects take, by sampling, and what a process may still take."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import psutil

SAMPLE = 64
GROUPS_SAMPLE = 256
VALUES_SAMPLE = 16  # of each group
_SCALARS = frozenset({str, int, float, bool, bytes, type(None), complex})
_LIST, _SLOT = 80, 8.5  # bytes of a list that was appended to, with its first places, and of each place it grew by
_ARRAY = 160  # bytes of an array beside its numbers


def size_of(value: Any, depth: int = 3) -> int:
    """Bytes a value takes with what it holds, to a factor of about 1.5.

    Large containers are sampled; an object that is met again in the sample is counted once.

    Args:
        value: Any; of arrays and tables their numbers count.
        depth: How many containers deep to look.
    """
    return _size(value, depth, set())


def size_of_items(values: Sequence[Any], samples: int = GROUPS_SAMPLE) -> int:
    """Bytes of what a list holds, without the list itself, by about ``samples`` of its items."""
    # An odd step: an even one would see only one kind of those that alternate.
    sample = values[:: len(values) // samples | 1]
    seen: set[int] = set()
    return _scaled(sum(_size(value, 3, seen) for value in sample), len(sample), len(values))


def size_of_groups(groups: Mapping[Any, Sequence[Any]]) -> int:
    """Bytes of a dict of lists that were appended to; keys with many values count by how many they have."""
    count = len(groups)
    if not count:
        return 0
    sample = list(islice(groups.items(), 0, None, max(1, count // GROUPS_SAMPLE)))
    held = sum(map(len, groups.values()))
    seen: set[int] = set()
    keys = _scaled(sum(_size(key, 3, seen) for key, _ in sample), len(sample), count)
    # Weighted by how many values a key has: values of frequent keys may differ from those of rare ones.
    inner = sampled = 0
    for _, values in sample:
        some = list(islice(values, VALUES_SAMPLE))
        inner += _scaled(sum(_size(value, 3, seen) for value in some), len(some), len(values))
        sampled += len(values)
    return sys.getsizeof(groups) + keys + _scaled(inner, sampled, held) + size_of_lists(count, held)


def size_of_lists(count: int, held: int) -> int:
    """Bytes of ``count`` lists that hold ``held`` values in all, without the values."""
    return int(count * _LIST + held * _SLOT)


def rss() -> int:
    """Bytes of memory this process takes now."""
    return int(psutil.Process().memory_info().rss)


def available(limit: int) -> int:
    """Bytes left to this process under a limit, or in the machine where that is less; never below 0."""
    return max(0, min(limit - rss(), int(psutil.virtual_memory().available)))


def _size(value: Any, depth: int, seen: set[int]) -> int:
    # Ids of values that live as long as the sample does: none is taken for another.
    if id(value) in seen:
        return 0
    seen.add(id(value))
    kind = type(value)
    if kind in _SCALARS:
        return (sys.getsizeof(value) + 15) & ~15  # the allocator's steps
    array = getattr(value, "nbytes", None)
    if isinstance(array, int):
        return array + _ARRAY
    size = (sys.getsizeof(value) + 15) & ~15
    if depth == 0:
        return size
    if isinstance(value, dict):
        some = list(islice(value.items(), SAMPLE))
        return size + _scaled(_sum((item for pair in some for item in pair), depth, seen), len(some), len(value))
    if isinstance(value, (list, tuple)):
        sample = value if len(value) <= SAMPLE else value[:: len(value) // SAMPLE]
        return size + _scaled(_sum(sample, depth, seen), len(sample), len(value))
    if isinstance(value, (set, frozenset)):
        items = list(islice(value, SAMPLE))
        return size + _scaled(_sum(items, depth, seen), len(items), len(value))
    return size + _size_of_fields(value, depth, seen)


def _size_of_fields(value: Any, depth: int, seen: set[int]) -> int:
    fields = getattr(value, "__dict__", None)
    size = 0
    if isinstance(fields, dict) and not isinstance(value, type):
        size += sys.getsizeof(fields) + _sum(fields.values(), depth, seen)
    for owner in type(value).__mro__:
        names = vars(owner).get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            size += _sum([getattr(value, name, None)], depth, seen)
    return size


def _sum(values: Iterable[Any], depth: int, seen: set[int]) -> int:
    return sum(_size(value, depth - 1, seen) for value in values)


def _scaled(size: int, sampled: int, count: int) -> int:
    return size * count // sampled if sampled else 0
