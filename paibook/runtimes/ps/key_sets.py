"""Keys sent once: a request for the keys of an earlier one names them by number (Li et al., OSDI 2014, section 4.3).

Both ends of a connection remember the last sets of keys that went over it. They see the same requests in the same
order and forget by the same rule, so the sender knows what the receiver knows, and nothing has to be asked. A set lives
as long as its connection: whoever takes over from a server that died begins with none, as does the new connection to
it, and is sent the keys.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paibook.comms.wire import Channel, Header
from paibook.errors import RunError
from paibook.runtimes.ps.messages import KNOWN_KEYS, WHOLE
from paibook.runtimes.ps.shards import owners, split

MAX_SETS = 16
MAX_BYTES = 32 << 20

Keys = NDArray[np.int64]
Part = tuple[int, Any, Keys]  # a server, positions in the whole (all of them: a slice), and the keys as it counts them


class RecentKeys:
    """The sets of keys used last, by number: at most ``MAX_SETS``, of ``MAX_BYTES`` in all."""

    def __init__(self) -> None:
        self._sets: OrderedDict[tuple[int, int], Keys] = OrderedDict()
        self._bytes = 0

    @property
    def nbytes(self) -> int:
        """What they take."""
        return self._bytes

    def __contains__(self, name: tuple[int, int]) -> bool:
        return name in self._sets

    def use(self, name: tuple[int, int]) -> Keys:
        """A set, by its table and number.

        Raises:
            KeyError: It is not remembered.
        """
        self._sets.move_to_end(name)
        return self._sets[name]

    def add(self, name: tuple[int, int], keys: Keys) -> None:
        """Remember a set, and forget those used longest ago that are too many now."""
        self._sets[name] = keys
        self._bytes += keys.nbytes
        while len(self._sets) > MAX_SETS or self._bytes > MAX_BYTES:
            self._bytes -= self._sets.popitem(last=False)[1].nbytes

    def find(self, table: int, keys: Keys) -> int:
        """The number of an equal set of ``table``; 0 where there is none."""
        for (other, number), known in reversed(self._sets.items()):
            if other == table and equal(known, keys):
                return number
        return 0


class SentKeys:
    """The sender's end."""

    def __init__(self) -> None:
        self._recent = RecentKeys()
        self._numbered = 0

    def shorten(self, header: Header, buffers: tuple[Any, ...]) -> tuple[Header, tuple[Any, ...]]:
        """The request as it is to be sent: without its keys where the receiver knows them.

        Args:
            header: Of a pull or push; others are left alone.
            buffers: Its keys first, where it has any; they must not be changed later.
        """
        if not header.keys:
            return header, buffers
        keys = buffers[0]
        number = self._recent.find(header.table, keys)
        if number:
            self._recent.use((header.table, number))
            return header._replace(flags=header.flags | KNOWN_KEYS, key_set=number), buffers[1:]
        if keys.nbytes > MAX_BYTES:
            return header, buffers
        self._numbered += 1
        self._recent.add((header.table, self._numbered), keys)
        return header._replace(key_set=self._numbered), buffers


class ReceivedKeys:
    """The receiver's end.

    Args:
        held: Told of the bytes that the sets take, when there is a new one.
    """

    def __init__(self, held: Callable[[int], None] = lambda nbytes: None) -> None:
        self._recent = RecentKeys()
        self._held = held

    def receive(self, header: Header, channel: Channel) -> Keys | None:
        """The keys of a request, read from ``channel`` unless they are known; None when it is about all rows.

        Raises:
            RunError: The request names a set that was never sent here, or has been forgotten.
        """
        if header.flags & WHOLE:
            return None
        name = (header.table, header.key_set)
        if header.flags & KNOWN_KEYS:
            if name not in self._recent or len(keys := self._recent.use(name)) != header.keys:
                raise RunError(f"a request names a set of {header.keys} keys that this server does not know")
            return keys
        keys = channel.receive_array(header.keys, np.int64)
        if header.key_set:
            self._recent.add(name, keys)
            self._held(self._recent.nbytes)
        return keys


class Splits:
    """How one table's keys are divided among servers; the last few answers are remembered.

    Args:
        starts: The first row of each server; None when the table is sparse.
        servers: How many.
    """

    def __init__(self, starts: Keys | None, servers: int) -> None:
        self._starts = starts
        self._servers = servers
        self._recent = RecentKeys()
        self._parts: dict[int, list[Part]] = {}
        self._numbered = 0

    def of(self, rows: Keys) -> list[Part]:
        """The parts of ``rows``, one for each server concerned. They do not change when ``rows`` does."""
        number = self._recent.find(0, rows)
        if number:
            self._recent.use((0, number))
            return self._parts[number]
        if rows.nbytes > MAX_BYTES:
            return list(self._divide(rows))
        rows = rows.copy()
        self._numbered += 1
        self._recent.add((0, self._numbered), rows)
        self._parts = {number: parts for number, parts in self._parts.items() if (0, number) in self._recent}
        self._parts[self._numbered] = parts = list(self._divide(rows))
        return parts

    def _divide(self, rows: Keys) -> Iterator[Part]:
        if self._servers == 1:
            if len(rows):
                yield 0, slice(None), rows
            return
        if self._starts is None:
            owner = owners(rows, self._servers)
        else:
            # Rightmost start not above the row; empty ranges at the front share a start, hence "right".
            owner = np.searchsorted(self._starts, rows, side="right").astype(np.int64) - 1
        for server, where in split(owner, self._servers):
            yield server, where, rows[where] if self._starts is None else rows[where] - self._starts[server]


def equal(a: Keys, b: Keys) -> bool:
    """Whether two sets of keys are the same, in the same order.

    >>> equal(np.array([1, 2]), np.array([1, 2])), equal(np.array([1, 2]), np.array([2, 1]))
    (True, False)
    """
    if a is b:
        return True
    if len(a) != len(b):
        return False
    return not len(a) or bool(a[0] == b[0] and a[-1] == b[-1] and (a == b).all())
