"""Memory that the ranks of one host share, and the turns they take in it.

A turn is a barrier with data: every rank writes to its slot, raises its flag to the turn's number, and waits until all
flags are there; then all may read all slots. Slots alternate between two sides: a rank that writes its next turn
cannot meet readers of the one before last, since they had read it before they raised their flags (double buffering as
in Mamidala et al., "MPI Collectives on Modern Multicore Clusters", CCGRID 2008).

Flags are plain 8-byte stores. x86 keeps stores, and loads, in their order (Intel SDM 3A, 9.2.2); other processors do
not, and Python has no fence to offer, so ``supported`` refuses them.
"""

from __future__ import annotations

import mmap
import os
import platform
import sys
import time
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paibook.comms.communicator import CommunicatorError
from paibook.comms.traffic import Traffic
from paibook.comms.waiting import wait_until

SLOT_BYTES = 1 << 21
HEADER_BYTES = 128
# Some 4 us. Measured: ten times that gains nothing on idle cores, where giving way returns at once, and loses all of it
# in every turn when the peer waits for this very core.
SPINS = 100

KNOWN_SHAPES = 100  # of arrays, whose views are kept

Bytes = NDArray[np.uint8]
Array = NDArray[Any]

_LINE = 128  # flags are two cache lines apart, since processors fetch pairs of lines
_ENDED = 1  # first word of the memory: 0, or _ENDED, or 2 + the rank that is gone
_PAGE = 4096


def supported() -> bool:
    """Whether ranks of this host can share memory this way."""
    return (
        sys.platform == "linux"
        and platform.machine() in ("x86_64", "AMD64")
        and hasattr(os, "memfd_create")
        and os.path.isdir("/proc/self/fd")
    )


class Disagreement(ValueError):
    """The ranks called different operations, or gave different buffers; raised on all of them, in the same turn."""


class Segment:
    """One rank's view of the shared memory.

    Args:
        descriptor: Of a file of ``Segment.bytes_for(size)`` zeros; not needed afterwards.
        rank, size: This rank's number, and how many there are.
        names: What messages call the ranks; by default their numbers.
        traffic: Where bytes and waits are counted.
    """

    def __init__(
        self,
        descriptor: int,
        rank: int,
        size: int,
        names: Sequence[int] | None = None,
        traffic: Traffic | None = None,
    ) -> None:
        self.rank, self.size = rank, size
        self.traffic = traffic or Traffic()
        self._names = range(size) if names is None else names
        self._memory = mmap.mmap(descriptor, self.bytes_for(size))
        self._words = memoryview(self._memory).cast("Q")
        self._turn = 0
        flags = [_LINE * (1 + r) // 8 for r in range(size)]
        self._flag, self._peers = flags[rank], [flag for r, flag in enumerate(flags) if r != rank]
        heads = _LINE * (1 + size)
        self._heads = [[heads + HEADER_BYTES * (side * size + r) for r in range(size)] for side in range(2)]
        whole = np.frombuffer(self._memory, np.uint8)[_heads_end(size) :].reshape(2, size, SLOT_BYTES)
        self._slots = [[whole[side, r] for r in range(size)] for side in range(2)]
        self._views: dict[tuple[np.dtype[Any], int], list[list[Array]]] = {}
        cores = len(os.sched_getaffinity(0))
        self._spins = SPINS if size <= cores else 0  # with fewer cores the peer waits for this one

    @staticmethod
    def bytes_for(size: int) -> int:
        """How much memory a group takes; what no operation has used is not there yet."""
        return _heads_end(size) + 2 * size * SLOT_BYTES

    @property
    def mine(self) -> Bytes:
        """This rank's slot of the next turn, to be written."""
        return self._slots[(self._turn + 1) & 1][self.rank]

    @property
    def all(self) -> list[Bytes]:
        """Every rank's slot of the turn that was met last, to be read."""
        return self._slots[self._turn & 1]

    def starts(self, dtype: np.dtype[Any], size: int) -> list[Array]:
        """The first ``size`` elements of every rank's slot of the next turn."""
        views = self._views.get((dtype, size))
        if views is None:
            if len(self._views) >= KNOWN_SHAPES:
                self._views.clear()
            length = size * dtype.itemsize
            views = self._views[dtype, size] = [[slot[:length].view(dtype) for slot in side] for side in self._slots]
        return views[(self._turn + 1) & 1]

    @property
    def lengths(self) -> list[int]:
        """What every rank gave as ``length`` when it began this operation."""
        return [self._words[head // 8] for head in self._heads[self._turn & 1]]

    def begin(self, text: bytes, length: int = 0) -> None:
        """Take an operation's first turn.

        Args:
            text: The call in words, padded by ``heading``; the same on all ranks.
            length: Told to the others; may differ.

        Raises:
            Disagreement: Naming which rank called what.
            CommunicatorError: See ``meet``.
        """
        heads = self._heads[(self._turn + 1) & 1]
        start = heads[self.rank]
        self._words[start // 8] = length
        self._memory[start + 8 : start + HEADER_BYTES] = text
        self.meet()
        for start in heads:
            if self._memory[start + 8 : start + HEADER_BYTES] != text:
                raise Disagreement(self._differences(heads))

    def meet(self) -> None:
        """Take a turn: returns when every rank has written its slot.

        Raises:
            CommunicatorError: The group was ended, or a rank is gone.
        """
        turn = self._turn = self._turn + 1
        words = self._words
        words[self._flag] = turn
        for flag in self._peers:
            if words[flag] < turn:
                self._wait(flag, turn)

    def end(self, gone: int | None = None) -> None:
        """End the group, for all ranks; from any thread."""
        if not self._words[0]:
            self._words[0] = _ENDED if gone is None else 2 + gone

    @property
    def ended(self) -> str:
        """Why the group was ended; empty while it was not."""
        code = self._words[0]
        if not code:
            return ""
        return "this group of ranks was ended" if code == _ENDED else f"rank {self._names[code - 2]} left the group"

    def _wait(self, flag: int, turn: int) -> None:
        words = self._words
        for _ in range(self._spins):
            if words[flag] >= turn:
                return

        def check() -> None:
            # A rank that is gone may have taken this turn before: then it is over all the same.
            if words[0] and words[flag] < turn:
                raise CommunicatorError(self.ended)

        began = time.monotonic()
        try:
            wait_until(lambda: words[flag] >= turn, check)
        finally:
            self.traffic.add_wait(time.monotonic() - began)

    def _differences(self, heads: list[int]) -> str:
        calls: dict[str, list[int]] = {}
        for rank, start in enumerate(heads):
            text = self._memory[start + 8 : start + HEADER_BYTES].rstrip(b"\0").decode(errors="replace")
            calls.setdefault(text, []).append(self._names[rank])
        parts = [f"{_spell(ranks)} called {text}" for text, ranks in sorted(calls.items(), key=lambda c: len(c[1]))]
        return f"the ranks do not call the same: {', '.join(parts)}"


def heading(text: str) -> bytes:
    """A call in words as ``begin`` takes it.

    >>> heading("Barrier")[:9], len(heading("Barrier"))
    (b'Barrier\\x00\\x00', 120)
    """
    data = text.encode()
    room = HEADER_BYTES - 8
    if len(data) > room:  # a dtype of many fields: its end is told apart by a checksum
        data = data[: room - 12] + b"...%08x" % zlib.crc32(data)
    return data.ljust(room, b"\0")


def _heads_end(size: int) -> int:
    end = _LINE * (1 + size) + 2 * size * HEADER_BYTES
    return end + -end % _PAGE


def _spell(ranks: list[int]) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    return f"ranks {', '.join(map(str, ranks[:-1]))} and {ranks[-1]}"
