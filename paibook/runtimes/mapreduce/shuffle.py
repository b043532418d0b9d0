"""The shuffle: groups of a map task cut into one bucket per reducer, and put together again by key."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import chain
from operator import itemgetter
from typing import Any

from paibook.runtimes.mapreduce.packing import pack, unpack
from paibook.runtimes.mapreduce.partition import partitions_of

Groups = dict[Any, list[Any]]  # key -> its values, in order of arrival; keys in order of first appearance
Segment = tuple[bytes, bytes | None, bytes]  # keys, how many values each has (None: one each), values
Bucket = list[Segment]  # what one map task has for one reducer, in order


class Buckets:
    """What a map task hands on, one bucket for each of ``count`` partitions."""

    def __init__(self, count: int) -> None:
        self.buckets: list[Bucket] = [[] for _ in range(count)]

    def add(self, groups: Mapping[Any, list[Any]]) -> None:
        """Append groups to the buckets of their keys' partitions.

        Raises:
            TypeError: A key that could never meet another.
            Exception: Whatever pickling a key or a value raises.
        """
        if len(self.buckets) == 1:
            shares: list[tuple[list[Any], list[list[Any]]]] = [(list(groups), list(groups.values()))]
        else:
            shares = [([], []) for _ in self.buckets]
            numbers = partitions_of(groups.keys(), len(shares))
            for number, key, values in zip(numbers, groups, groups.values(), strict=True):
                share = shares[number]
                share[0].append(key)
                share[1].append(values)
        for bucket, (keys, lists) in zip(self.buckets, shares, strict=True):
            if keys:
                bucket.append(_segment(keys, lists))


def _segment(keys: list[Any], lists: list[list[Any]]) -> Segment:
    counts = list(map(len, lists))
    values = list(chain.from_iterable(lists))
    single = len(values) == len(keys) and 0 not in counts
    return (pack(keys), None if single else pack(counts), pack(values))


def merged(buckets: Iterable[Bucket]) -> Groups:
    """All groups of one partition; values stand in the order of the buckets and of their segments."""
    groups: defaultdict[Any, list[Any]] = defaultdict(list)
    for packed_keys, packed_counts, packed_values in chain.from_iterable(buckets):
        keys, values = unpack(packed_keys), unpack(packed_values)
        if packed_counts is None:
            for key, value in zip(keys, values, strict=True):
                groups[key].append(value)
            continue
        start = 0
        for key, count in zip(keys, unpack(packed_counts), strict=True):
            groups[key].extend(values[start : start + count])
            start += count
    return _with_one_nan(groups)


def _with_one_nan(groups: Groups) -> Groups:
    """Groups with all NaN keys as one: a NaN equals nothing, so every copy of it would be a key of its own."""
    if float not in set(map(type, groups)):
        return groups
    strange = [key for key in groups if key != key]
    if len(strange) < 2:
        return groups
    first, *others = strange
    for key in others:
        groups[first].extend(groups.pop(key))
    return groups


def ordered(groups: Groups) -> tuple[list[tuple[Any, list[Any]]], bool]:
    """Keys with their values: in order and True, or by first appearance and False where keys cannot be compared."""
    items = list(groups.items())
    try:
        items.sort(key=itemgetter(0))
    except TypeError:
        return list(groups.items()), False  # a sort that fails leaves its list in disorder
    return items, True
