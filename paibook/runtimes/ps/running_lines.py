"""Which line of the cell each worker is at: looked at from beside it, told when it is another one."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from paibook.clusters.contract import Event, OnEvent, Place

LOOK_SECONDS = 0.5  # as often as the run is drawn


@contextmanager
def running_lines(place: Place, filename: str) -> Iterator[None]:
    """While the body runs, tell the driver at which line of a file this thread is, from a thread of its own.

    Args:
        place: The worker's.
        filename: The cell's, as tracebacks call it.
    """
    over = threading.Event()
    thread = threading.get_ident()

    def look() -> None:
        told = None
        while not over.wait(LOOK_SECONDS):
            line = line_of(sys._current_frames().get(thread), filename)
            if line is not None and line != told:
                told = line
                place.emit("progress", {"line": line})

    watcher = threading.Thread(target=look, name="paibook-lines", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def line_of(frame: FrameType | None, filename: str) -> int | None:
    """The line at which the innermost function of a file is; None where none of its functions is at work."""
    while frame is not None:
        if frame.f_code.co_filename == filename:
            return frame.f_lineno
        frame = frame.f_back
    return None


class RunningLines:
    """Keeps what workers tell of their lines, and passes every other event on.

    Attributes:
        lines: By the worker's name, such as ``"worker 1"``.
    """

    def __init__(self, emit: OnEvent) -> None:
        self._emit = emit
        self.lines: dict[str, int] = {}

    def on_event(self, event: Event) -> None:
        """For ``Ranks.apply``."""
        if event.kind != "progress" or not isinstance(event.data, dict):
            self._emit(event)
        elif isinstance(line := event.data.get("line"), int):
            # A new one each time: the observer's thread may be going through the old one.
            self.lines = {**self.lines, f"worker {event.rank}": line}
