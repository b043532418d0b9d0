"""How far a run has come, in its folder as ``progress.json``, for whoever looks on from another process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from paibook.runtimes.contract import Progress

FILE = "progress.json"
WRITE_SECONDS = 0.5


class ProgressLog:
    """The latest report of each stage of a run, written at most twice a second, and never on the caller's time.

    A run that ends sooner than that writes nothing.

    Args:
        directory: The run's own.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._latest: dict[str, Progress] = {}
        self._timer: threading.Timer | None = None
        self._written = False
        self._closed = False
        self._lock = threading.Lock()

    def take(self, progress: Progress) -> None:
        """Keep a report; from any thread."""
        with self._lock:
            self._latest[progress.stage] = progress
            if self._timer is None and not self._closed:
                self._timer = threading.Timer(WRITE_SECONDS, self._write)
                self._timer.daemon = True
                self._timer.start()

    def close(self) -> None:
        """Write how far it came in the end."""
        with self._lock:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
        if self._written:
            self._write()

    def _write(self) -> None:
        with self._lock:
            self._timer, self._written = None, True
            temporary = self._path.with_name(FILE + ".new")
            try:
                temporary.write_text(json.dumps([asdict(progress) for progress in self._latest.values()]))
                temporary.replace(self._path)
            except (OSError, TypeError, ValueError):
                temporary.unlink(missing_ok=True)  # whoever looks on sees less; the run itself goes on


class ProgressTail:
    """Reads a run's ``progress.json`` as it changes.

    Args:
        directory: The run's own.
        on_progress: Called with each stage's report that is new.
    """

    def __init__(self, directory: Path, on_progress: Callable[[Progress], None]) -> None:
        self._path = directory / FILE
        self._on_progress = on_progress
        self._stamp = 0
        self._seen: dict[str, Any] = {}

    def read(self) -> None:
        """Hand on what has changed."""
        try:
            stamp = self._path.stat().st_mtime_ns
            if stamp == self._stamp:
                return
            reports = json.loads(self._path.read_text())
            self._stamp = stamp
        except (OSError, ValueError):
            return
        for report in reports:
            if self._seen.get(report["stage"]) != report:
                self._seen[report["stage"]] = report
                self._on_progress(Progress(**report))
