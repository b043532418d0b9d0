"""Where a key's row lies: a hash table from int64 keys to numbers, for batches of keys. Loads numba."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from paibook.runtimes.ps.jit import jit
from paibook.runtimes.ps.prefetch import AHEAD, prefetch

Keys = NDArray[np.int64]
Places = NDArray[np.int64]

MISSING = -1
_FULL = 0.75  # of the entries; beyond it probes grow long
_GROWTH = 1.5
_EMPTY = 0  # as it is stored: one more than the place, so that an empty entry's is MISSING


class KeyIndex:
    """Open addressing with linear probing; a key and its place lie in one cache line.

    Entries lie in the order of their keys' hashes, nearly, so that a larger table is filled from its start to its end.
    Deletion moves later entries back (Knuth, The Art of Computer Programming 3, 6.4, algorithm R), so no tombstones
    pile up. A place is any number but -1, which means that the key is missing, and the largest int64.

    Args:
        capacity: Keys to make room for; grows by itself.
    """

    def __init__(self, capacity: int = 1024) -> None:
        self._entries = _table(capacity)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Bytes of the table."""
        return int(self._entries.nbytes)

    def find(self, keys: Keys) -> Places:
        """The places of keys; -1 where one is missing."""
        places = np.empty(len(keys), np.int64)
        _find(self._entries, keys, places)
        return places

    def add(self, keys: Keys, free: Places, left: int) -> tuple[Places, Places, int]:
        """The places of keys; those missing are given the last of the free places, one after the other.

        Args:
            keys: May hold duplicates.
            free: Places to give away: the first ``left`` of them.
            left: At least as many as there are different keys missing.

        Returns:
            Places; positions in ``keys`` of those that were added; free places that are left.

        Raises:
            IndexError: There are too few free places; nothing more is added from there on.
        """
        places = np.empty(len(keys), np.int64)
        added = np.empty(min(len(keys), left), np.int64)
        done, count = 0, 0
        while done < len(keys):
            room = int(len(self._entries) * _FULL) - self._count
            done, given = _add(self._entries, keys, places, done, free, left, room, added, count)
            self._count += given
            count += given
            left -= given
            if done < len(keys):
                if left == 0:
                    raise IndexError("too few free places")
                self._grow()
        return places, added[:count], left

    def put(self, keys: Keys, places: Places) -> None:
        """Give keys, those missing and those present, these places."""
        while len(self._entries) * _FULL < self._count + len(keys):
            self._grow()
        self._count += _put(self._entries, keys, places)

    def delete(self, keys: Keys) -> None:
        """Forget keys; those missing are passed over."""
        self._count -= _delete(self._entries, keys)

    def items(self) -> tuple[Keys, Places]:
        """All keys and their places, in the order of the places."""
        used = self._entries[self._entries[:, 1] != _EMPTY]
        used = used[np.argsort(used[:, 1], kind="stable")]
        return used[:, 0].copy(), used[:, 1] - 1

    def _grow(self) -> None:
        larger = np.zeros((int(len(self._entries) * _GROWTH), 2), np.int64)
        _move(self._entries, larger)
        self._entries = larger


def _table(keys: int) -> NDArray[np.int64]:
    return np.zeros((max(16, int(keys / _FULL) + 1), 2), np.int64)  # zeros take no memory before they are written


@njit(inline="always")
def _home(key: int, size: int) -> int:
    # The finaliser of MurmurHash3. Servers divide the keys among them by another hash, of which this one must not
    # be a function, or a server's keys would crowd in a part of its table.
    h = np.uint64(key)
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xFF51AFD7ED558CCD)
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xC4CEB9FE1A85EC53)
    h ^= h >> np.uint64(33)
    # Its upper half, scaled to the table: order is kept, where a remainder would shuffle the entries when it grows.
    return np.int64(((h >> np.uint64(32)) * np.uint64(size)) >> np.uint64(32))  # type: ignore[return-value]


@njit(inline="always")
def _seek(entries: Any, key: int) -> int:
    """The row of the key, or the empty row where it would go."""
    row = _home(key, len(entries))
    while entries[row, 1] != _EMPTY and entries[row, 0] != key:
        row = _after(row, len(entries))
    return row


@njit(inline="always")
def _after(row: int, size: int) -> int:
    row += 1
    return 0 if row == size else row


@njit(inline="always")
def _distance(first: int, last: int, size: int) -> int:
    """Steps from one entry to another, round the end."""
    return last - first if first <= last else last - first + size


@jit
def _find(entries: Any, keys: Any, places: Any) -> None:
    count = len(keys)
    for i in range(count):
        if i + AHEAD < count:
            prefetch(entries, _home(keys[i + AHEAD], len(entries)))
        places[i] = entries[_seek(entries, keys[i]), 1] - 1


@jit
def _add(
    entries: Any, keys: Any, places: Any, done: int, free: Any, left: int, room: int, added: Any, count: int
) -> tuple[int, int]:
    given = 0
    for i in range(done, len(keys)):
        if i + AHEAD < len(keys):
            prefetch(entries, _home(keys[i + AHEAD], len(entries)))
        row = _seek(entries, keys[i])
        if entries[row, 1] == _EMPTY:
            if given >= min(left, room):
                return i, given
            entries[row, 0] = keys[i]
            entries[row, 1] = free[left - given - 1] + 1
            added[count + given] = i
            given += 1
        places[i] = entries[row, 1] - 1
    return len(keys), given


@jit
def _put(entries: Any, keys: Any, places: Any) -> int:
    new = 0
    for i in range(len(keys)):
        row = _seek(entries, keys[i])
        new += entries[row, 1] == _EMPTY
        entries[row, 0] = keys[i]
        entries[row, 1] = places[i] + 1
    return new


@jit
def _delete(entries: Any, keys: Any) -> int:
    size, gone = len(entries), 0
    for i in range(len(keys)):
        hole = _seek(entries, keys[i])
        if entries[hole, 1] == _EMPTY:
            continue
        gone += 1
        row = hole
        while True:
            row = _after(row, size)
            if entries[row, 1] == _EMPTY:
                break
            # An entry may fill the hole unless its home lies behind the hole.
            if _distance(_home(entries[row, 0], size), row, size) >= _distance(hole, row, size):
                entries[hole, 0] = entries[row, 0]
                entries[hole, 1] = entries[row, 1]
                hole = row
        entries[hole, 1] = _EMPTY
    return gone


@jit
def _move(entries: Any, larger: Any) -> None:
    for i in range(len(entries)):
        if entries[i, 1] != _EMPTY:
            row = _seek(larger, entries[i, 0])
            larger[row, 0] = entries[i, 0]
            larger[row, 1] = entries[i, 1]
