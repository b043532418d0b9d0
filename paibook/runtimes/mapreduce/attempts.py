"""Attempts: each try of a task leaves a mark, so that the next one learns which record ended its worker's process.

A record that kills its process (a crash in C, memory beyond all bounds) cannot be caught. The first try runs at full
speed; after it died, the next notes each record before it is mapped; of three deaths two at the same record are that
record's doing. Two alone would not tell: who kills workers from outside may well meet a slow record twice.
"""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from pathlib import Path
from types import TracebackType

_ENDED, _UNWATCHED = -1, -2
_SIZE = 8
_DEATHS, _AT_ONE = 3, 2  # of a task, and of these at one record, after which it is to blame


class Attempt:
    """One try of one task; a context manager.

    Args:
        folder: The task's own, shared by all its attempts; None where workers share no folder: nothing is known then.

    Attributes:
        careful: Whether an earlier attempt died, so that ``at`` is to be called before each record.
        fatal: Positions to blame for the deaths of earlier attempts.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._marks: mmap.mmap | None = None
        self.careful = False
        self.fatal: frozenset[int] = frozenset()

    def __enter__(self) -> Attempt:
        if self._folder is None:
            return self
        self._folder.mkdir(parents=True, exist_ok=True)
        ends = [_position(path) for path in self._folder.iterdir()]
        died = [position for position in ends if position != _ENDED]
        self.careful = bool(died)
        if len(died) >= _DEATHS:
            self.fatal = frozenset(p for p, times in Counter(died).items() if times >= _AT_ONE and p >= 0)
        self._marks = _new_marks(self._folder)
        self.at(_UNWATCHED)
        return self

    def at(self, position: int) -> None:
        """Say which record (or key) comes now, counted from 0."""
        if self._marks is not None:
            struct.pack_into("<q", self._marks, 0, position)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.at(_ENDED)
        if self._marks is not None:
            self._marks.close()
            self._marks = None


def fatal_text(what: str) -> str:
    """What to say of a record, key or table in ``Attempt.fatal``."""
    return f"{what} ended its worker's process each time (killed, crashed in C, or out of memory)"


def _new_marks(folder: Path) -> mmap.mmap:
    number = len(list(folder.iterdir()))
    while True:
        try:
            with (folder / str(number)).open("xb+") as file:
                file.write(bytes(_SIZE))
                file.flush()
                return mmap.mmap(file.fileno(), _SIZE)
        except FileExistsError:  # another attempt started at the same moment
            number += 1


def _position(path: Path) -> int:
    content = path.read_bytes()
    return struct.unpack("<q", content)[0] if len(content) == _SIZE else _UNWATCHED
