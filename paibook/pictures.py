"""Pictures of a run kept with their times, so that it can be looked at again: paused, stepped, replayed."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

PICTURES = "pictures.jsonl"  # in a run's folder
EVERY_SECONDS = 0.25  # between pictures in the long run
BURST = 64  # that may come at once, so that a run of a second is seen step by step
MOST = 2000  # pictures of one run, and the bytes that they take
MOST_BYTES = 16_000_000
_HEAD = re.compile(rb'\{"number": (\d+), "time": ([\d.]+), "picture": ')


class Frame(NamedTuple):
    """A picture with what it is known by.

    Attributes:
        number: Counts the pictures as they were kept; those that were thinned out leave gaps.
        time: Seconds since the epoch.
        picture: As in ``Progress.picture``.
    """

    number: int
    time: float
    picture: dict[str, Any]


class Pace:
    """How often there may be a picture: one in so many seconds, and a few at once after a quiet time.

    A token bucket: Turner, New Directions in Communications (or Which Way to the Information Age?), 1986.

    Args:
        every: Seconds between two in the long run.
        burst: Most that may come at once.
    """

    def __init__(self, every: float = EVERY_SECONDS, burst: int = BURST) -> None:
        self.every = every
        self._burst = burst
        self._tokens = float(burst)
        self._latest: float | None = None

    def allows(self, now: float) -> bool:
        """Whether there may be one now; counts it if so. ``now`` is seconds of any one clock."""
        if self._latest is not None:
            self._tokens = min(self._burst, self._tokens + max(0.0, now - self._latest) / self.every)
        self._latest = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class _Entry(NamedTuple):
    number: int
    time: float
    offset: int
    length: int


class PictureLog:
    """The pictures of one run in a file, in the order of their times; JSON, one a line.

    They are kept at a ``Pace``: of those that come too soon, the latest waits. When there are ``MOST``, or they take
    ``MOST_BYTES``, every second one is left out and the next ones are kept half as often, so that a run of hours has
    pictures of all its time. A disk that is full ends the recording, never the run.

    Args:
        path: The file; made with the first picture. What is in it already stays.
        clock: Seconds since the epoch.

    Attributes:
        unsaved: Why pictures are no longer kept, or empty.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: tuple[float, dict[str, Any]] | None = None
        self._last: str | None = None
        self._pace = Pace()
        self.unsaved = ""
        self._entries, self._size = _indexed(path)

    def add(self, picture: Mapping[str, Any]) -> None:
        """Keep a picture; one like the last is not kept again. JSON-able; from any thread."""
        with self._lock:
            if self.unsaved:
                return
            self._waiting = (self._clock(), dict(picture))
            self._keep_if_due()

    def close(self) -> None:
        """Keep the last picture too, whenever it came."""
        with self._lock:
            self._keep()

    def refresh(self) -> None:
        """Look at what another process has written meanwhile; for runs that are driven elsewhere."""
        try:
            size = self._path.stat().st_size
        except OSError:
            return
        with self._lock:
            if size != self._size:
                self._entries, self._size = _indexed(self._path)

    @property
    def times(self) -> list[tuple[int, float]]:
        """The number and the time of each picture kept so far."""
        with self._lock:
            self._keep_if_due()
            return [(entry.number, entry.time) for entry in self._entries]

    def read(self, numbers: Iterable[int]) -> list[Frame]:
        """The pictures of these numbers, in their order; those that are not kept (any more) are left out."""
        wanted = set(numbers)
        with self._lock:
            return _frames(self._path, [entry for entry in self._entries if entry.number in wanted])

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def last(self) -> Frame | None:
        """The last picture kept so far, None where there is none."""
        with self._lock:
            self._keep_if_due()
            found = _frames(self._path, self._entries[-1:])
        return found[0] if found else None

    def _keep_if_due(self) -> None:
        if self._waiting is not None and self._pace.allows(self._clock()):
            self._keep()

    def _keep(self) -> None:
        if self._waiting is None or self.unsaved:
            return
        (when, picture), self._waiting = self._waiting, None
        text = json.dumps(picture, separators=(",", ":"))
        if text == self._last:
            return
        number = self._entries[-1].number + 1 if self._entries else 0
        line = f'{{"number": {number}, "time": {when:.3f}, "picture": {text}}}\n'.encode()
        try:
            if len(self._entries) >= MOST or (self._size + len(line) > MOST_BYTES and len(self._entries) > 1):
                self._thin()
            with self._path.open("ab") as file:
                file.truncate(self._size)  # half a line, left by a process that died
                file.write(line)
        except OSError as error:
            self.unsaved = f"pictures are no longer saved: {error}"
            return
        self._last = text
        self._entries.append(_Entry(number, when, self._size, len(line)))
        self._size += len(line)

    def _thin(self) -> None:
        """Leave out every second picture, never the first; readers see the old file or the new one."""
        temporary = self._path.with_name(self._path.name + ".new")
        entries, size = [], 0
        with self._path.open("rb") as old, temporary.open("wb") as new:
            for entry in self._entries[::2]:
                old.seek(entry.offset)
                new.write(old.read(entry.length))
                entries.append(entry._replace(offset=size))
                size += entry.length
        temporary.replace(self._path)
        self._entries, self._size = entries, size
        self._pace.every *= 2


def _indexed(path: Path) -> tuple[list[_Entry], int]:
    """Where each whole line of a file stands, and the bytes up to its end; nothing where there is no file."""
    entries: list[_Entry] = []
    size = 0
    try:
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                if head := _HEAD.match(line):
                    entries.append(_Entry(int(head[1]), float(head[2]), size, len(line)))
                size += len(line)
    except OSError:
        return [], 0
    return entries, size


def _frames(path: Path, entries: Sequence[_Entry]) -> list[Frame]:
    frames: list[Frame] = []
    try:
        with path.open("rb") as file:
            for entry in entries:
                file.seek(entry.offset)
                if (frame := _parsed(file.read(entry.length))) is not None:
                    frames.append(frame)
    except OSError:
        pass  # the run's folder was deleted
    return frames


def _parsed(line: bytes) -> Frame | None:
    try:
        found = json.loads(line)
        return Frame(int(found["number"]), float(found["time"]), dict(found["picture"]))
    except (ValueError, KeyError, TypeError):
        return None  # a line that somebody has spoilt
