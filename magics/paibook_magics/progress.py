"""The progress of a run, drawn in place while it goes on, and its summary when it has ended."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from IPython.core.getipython import get_ipython
from IPython.display import display

from paibook.runtimes.contract import Progress
from paibook_magics.allreduce_picture import allreduce_summary, is_allreduce
from paibook_magics.mapreduce_scene import mapreduce_drawing
from paibook_magics.panel import panel
from paibook_magics.pictures import drawn
from paibook_magics.ps_picture import is_ps, ps_summary
from paibook_magics.sizes import short_time
from paibook_magics.stage_meters import StageMeters
from paibook_magics.summary import summary_bundle

PROGRESS_SECONDS = 0.25
TERMINAL_SECONDS = 10.0  # a terminal cannot replace what it shows, so each drawing stays


class ProgressDisplay:
    """A panel of the stages, in place; standard display messages, so that it is saved as it ended.

    Args:
        after: Seconds before it appears.
        began: Seconds ago, of a run that has been going on.
    """

    def __init__(self, after: float, began: float = 0.0) -> None:
        self._after = after
        self._interval = PROGRESS_SECONDS if hasattr(get_ipython(), "kernel") else TERMINAL_SECONDS
        self._began = time.monotonic() - began
        self._drawn: float | None = None
        self._meters = StageMeters()
        self._changed = False
        self._handle: Any = None
        self._started: tuple[str, float] | None = None
        self._picture: Mapping[str, Any] | None = None

    def update(self, progress: Progress) -> None:
        """Take a stage's progress, from any thread."""
        now = time.monotonic()
        if progress.stage == "start":
            self._started = (progress.unit, progress.done) if progress.done else None
            self._began = now
            return
        self._meters.update(progress, now)
        self._picture = progress.picture or self._picture
        self._changed = True

    def tick(self) -> None:
        """Draw what has changed, at most four times a second; on the cell's own thread."""
        now = time.monotonic()
        if self._started is not None and self._started[1] > 0.1:
            print(f"started the {self._started[0]} cluster in {self._started[1]:.1f} s")
        self._started = None
        due = self._drawn is None or now - self._drawn >= self._interval
        if self._changed and due and now - self._began >= self._after:
            self._drawn, self._changed = now, False
            self._show(self._panel())

    def finish(self, state: str = "done", summary: Mapping[str, Any] | None = None, hint: str = "") -> None:
        """Leave the summary where the panel was; without one the stages in a line, or the panel of what failed.

        Args:
            state: How the run ended.
            summary: ``Run.summary``.
            hint: What else there is to see of it.
        """
        self.tick()
        if state == "done" and summary is not None:
            self._show(_folded(summary, self._handle is not None, hint))
        elif self._handle is not None and state == "done":
            self._show({"text/plain": self.line()})
        elif self._handle is not None:
            how = "still running" if state == "running" else state
            self._show(self._panel(f"{how} after {short_time(time.monotonic() - self._began)}"))

    def _panel(self, note: str = "") -> dict[str, str]:
        """The run as it stands; with a note, as it stood when it ended."""
        if self._picture is not None and self._picture["model"] != "mapreduce":
            return drawn(self._picture, note)
        readings = self._meters.read()
        drawing = "" if self._picture is None else mapreduce_drawing(self._picture)
        shown = [reading.stopped() for reading in readings] if note else readings
        return panel(shown, self._meters.counters, note, drawing)

    def line(self) -> str:
        """The stages in one line, such as ``map 8 tasks · reduce 4 tasks · 3.2 s``."""
        readings = self._meters.read()
        several = len(readings) > 1
        stages = [f"{reading.name} " * several + f"{reading.done:,g} {reading.unit}" for reading in readings]
        return " · ".join([*stages, short_time(time.monotonic() - self._began)])

    def _show(self, bundle: dict[str, str]) -> None:
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def _folded(summary: Mapping[str, Any], opened: bool, hint: str) -> dict[str, str]:
    if is_allreduce(summary):
        return allreduce_summary(summary, opened, hint)
    return ps_summary(summary, opened, hint) if is_ps(summary) else summary_bundle(summary, hint)
