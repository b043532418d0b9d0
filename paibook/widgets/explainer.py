"""The explainer: a run's pictures in a player, live or again, paused, step by step, slowly, beside the cell's code."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any, Protocol

import anywidget
import traitlets

from paibook.pictures import Frame
from paibook.widgets.subshells import take_where_sent

_STATIC = Path(__file__).parent / "static"

MOST_AT_ONCE = 32  # pictures in an answer
Draw = Callable[[Mapping[str, Any]], Mapping[str, str]]


class Pictures(Protocol):
    """The pictures of a run, such as a ``PictureLog``."""

    @property
    def times(self) -> list[tuple[int, float]]: ...
    @property
    def last(self) -> Frame | None: ...
    def read(self, numbers: Any) -> list[Frame]: ...
    def refresh(self) -> None: ...


class Explainer(anywidget.AnyWidget):
    """Plays the pictures of one run.

    The page knows when there is a picture (``frames``: its number, and seconds since the first) and asks for those that
    it shows next; they are drawn here, so that there is one drawing for live cells, saved notebooks and the player.
    While the run goes on and the player is in sight the page asks for news, about twice a second: nothing polls in the
    kernel, and pausing the player stops nothing but the player. Two messages come from the page: news and frames.

    JupyterLab delivers what the page asks on a thread of its own (a kernel subshell), so the player is answered while a
    cell keeps the kernel's main thread; hence the lock.

    Args:
        pictures: The run's.
        draw: From a picture to a MIME bundle with ``text/html`` and ``text/plain``.
        state: How the run stands: ``running``, ``done``, ``failed`` or ``cancelled``.
        title: Shown above.
        source: The cell's code; its first line is the cell's first.
        refresh: Whether another process may be writing the pictures.
    """

    _esm = _STATIC / "explainer.js"
    _css = _STATIC / "explainer.css"

    title = traitlets.Unicode("").tag(sync=True)
    source = traitlets.Unicode("").tag(sync=True)
    state = traitlets.Unicode("").tag(sync=True)
    frames: traitlets.List[list[float]] = traitlets.List().tag(sync=True)
    version = traitlets.Int(0).tag(sync=True)

    def __init__(
        self,
        pictures: Pictures,
        draw: Draw,
        state: Callable[[], str],
        title: str = "",
        source: str = "",
        refresh: bool = False,
    ) -> None:
        super().__init__(title=title, source=source)
        self._pictures = pictures
        self._draw = draw
        self._state_now = state
        self._refresh = refresh
        self._lock = threading.RLock()
        self.update()
        self.on_msg(self._receive)
        take_where_sent(self.comm)

    def update(self) -> None:
        """Say which pictures there are, and how the run stands."""
        with self._lock:
            state = self._state_now()  # before its last picture is looked for
            if self._refresh:
                self._pictures.refresh()
            times = self._pictures.times
            began = times[0][1] if times else 0.0
            with self.hold_sync():
                self.frames = [[number, round(when - began, 3)] for number, when in times]
                self.state = state
                self.version += 1  # an answer also where nothing is new

    def static(self) -> dict[str, str]:
        """The last picture as HTML and text, for where there is no kernel."""
        with self._lock:
            last = self._pictures.last
        heading = " · ".join(filter(None, [self.title, self.state]))
        if last is None:
            return {
                "text/plain": f"{heading}\nno picture yet",
                "text/html": f"<p>{escape(heading)}: no picture yet</p>",
            }
        bundle = self._draw(last.picture)
        return {
            "text/plain": f"{heading}\n{bundle['text/plain']}",
            "text/html": f"<p>{escape(heading)}</p>{bundle['text/html']}",
        }

    def _receive(self, _widget: Any, content: Any, _buffers: Any) -> None:
        kind = content.get("kind") if isinstance(content, dict) else None
        if kind == "news":
            self.update()
        elif kind == "frames" and isinstance(content.get("numbers"), list):
            numbers = [number for number in content["numbers"] if isinstance(number, int)][:MOST_AT_ONCE]
            with self._lock:
                found = [self._drawn(frame) for frame in self._pictures.read(numbers)]
            self.send({"kind": "frames", "frames": found, "asked": numbers})

    def _drawn(self, frame: Frame) -> dict[str, Any]:
        bundle = self._draw(frame.picture)
        lines = frame.picture.get("lines")
        return {
            "number": frame.number,
            "html": bundle["text/html"],
            "text": bundle["text/plain"],
            "lines": dict(lines) if isinstance(lines, Mapping) else {},
        }

    def __repr__(self) -> str:
        return f"{self.title or 'Explainer'}: {len(self.frames)} pictures, {self.state}"
