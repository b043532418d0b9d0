"""Per-thread capture of prints, for places where several functions share one process."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO

FLUSH_SECONDS = 0.05
FLUSH_CHARACTERS = 16_384

Write = Callable[[str], None]


class Printer:
    """Joins small writes into few events: passed on every 50 ms or 16k characters, and by ``flush``."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._parts: list[str] = []
        self._length = 0
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def write(self, text: str) -> None:
        with self._lock:
            self._parts.append(text)
            self._length += len(text)
            full = self._length >= FLUSH_CHARACTERS
            if not full and self._timer is None:
                self._timer = threading.Timer(FLUSH_SECONDS, self.flush)
                self._timer.daemon = True
                self._timer.start()
        if full:
            self.flush()

    def flush(self) -> None:
        with self._lock:
            text = "".join(self._parts)
            self._parts, self._length = [], 0
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None
            if text:
                self._write(text)  # under the lock, so that chunks stay in order


_printers: ContextVar[dict[str, Printer] | None] = ContextVar("paibook_printers", default=None)


class _Router(io.TextIOBase):
    """Stands in for ``sys.stdout`` or ``sys.stderr``: writes go to the calling context's printer, if it has one."""

    def __init__(self, name: str, original: TextIO) -> None:
        self.name = name
        self.original = original

    def write(self, text: str) -> int:
        printers = _printers.get()
        if printers is None:
            return self.original.write(text)
        printers[self.name].write(text)
        return len(text)

    def flush(self) -> None:
        printers = _printers.get()
        if printers is None:
            self.original.flush()
        else:
            printers[self.name].flush()

    def writable(self) -> bool:
        return True

    # What the base class answers for itself never gets to __getattr__.

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.original.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self.original.errors

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)


_lock = threading.Lock()
_users = 0


@contextmanager
def captured(stdout: Write, stderr: Write) -> Iterator[None]:
    """Send what this context prints to two functions; other threads print as before."""
    _install(+1)
    printers = {"stdout": Printer(stdout), "stderr": Printer(stderr)}
    token = _printers.set(printers)
    try:
        yield
    finally:
        _printers.reset(token)
        for printer in printers.values():
            printer.flush()
        _install(-1)


def _install(change: int) -> None:
    # The routers stand only while somebody captures, so an idle process keeps the streams it had.
    global _users
    with _lock:
        _users += change
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if _users and not isinstance(stream, _Router):
                setattr(sys, name, _Router(name, stream))
            elif not _users and isinstance(stream, _Router):
                setattr(sys, name, stream.original)
