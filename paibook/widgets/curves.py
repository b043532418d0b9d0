"""The live curves of a run: one small panel per metric, and a Stop button."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets
from numpy.typing import NDArray

from paibook.metrics import MetricStream
from paibook.widgets.decimation import Curve, History, Points
from paibook.widgets.figure import bundle_of, number, summary_rows

_STATIC = Path(__file__).parent / "static"

MESSAGE_SECONDS = 0.1
BYTES_PER_SECOND = 500_000
REPORTS_PER_UPDATE = 50_000


class Curves(anywidget.AnyWidget):
    """Show a metric stream while it grows.

    State travels one way, to the page: ``panels`` describes the curves, ``data`` holds their points (float64, little
    endian, found by offset and length in ``panels``), ``version`` changes when both are new. The whole decimated state
    is in these traits, so a reloaded page resumes at once. The page sends two messages back: stop, and by_rank.

    Args:
        stream: The run's metrics; what is already in it is shown too.
        title: Shown above the curves.
        on_stop: Called when Stop is clicked; None shows no Stop button. JupyterLab may deliver the click on a thread
            of its own (a kernel subshell), so it must be safe to call from any thread.
    """

    _esm = _STATIC / "curves.js"
    _css = _STATIC / "curves.css"

    title = traitlets.Unicode("").tag(sync=True)
    status = traitlets.Unicode("").tag(sync=True)
    running = traitlets.Bool(True).tag(sync=True)
    can_stop = traitlets.Bool(False).tag(sync=True)
    panels: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    data = traitlets.Bytes(b"").tag(sync=True)
    version = traitlets.Int(0).tag(sync=True)

    def __init__(self, stream: MetricStream, title: str = "", on_stop: Callable[[], Any] | None = None) -> None:
        super().__init__(title=title, can_stop=on_stop is not None)
        self._stream = stream
        self._on_stop = on_stop
        self._history = History()
        self._read = 0
        self._by_rank = False
        self._changed = True
        self._next = 0.0
        self.on_msg(self._receive)

    def update(self) -> None:
        """Send what is new, at most ten times a second and ``BYTES_PER_SECOND``; cheap when nothing is."""
        self._take(REPORTS_PER_UPDATE)
        now = time.monotonic()
        if self._changed and now >= self._next:
            self._send_state()
            self._next = now + max(MESSAGE_SECONDS, len(self.data) / BYTES_PER_SECOND)

    def close_with_static(self) -> dict[str, Any]:
        """Show the final state as no longer running; return the MIME bundle that stands for it without a kernel."""
        self._take(None)
        self.running = False
        self._send_state()
        return bundle_of(self._history, self.title)

    def _take(self, limit: int | None) -> None:
        new = self._stream.since(self._read) if len(self._stream) > self._read else []
        new = new[:limit]
        self._history.add(new)
        self._read += len(new)
        self._changed = self._changed or bool(new)

    def _send_state(self) -> None:
        self._changed = False
        blocks = _Blocks()
        panels = [_panel(curve, blocks, self._by_rank) for curve in self._history.curves.values()]
        with self.hold_sync():
            self.status = self._status()
            self.panels = panels
            self.data = blocks.tobytes()
            self.version += 1

    def _status(self) -> str:
        ranks = {rank for curve in self._history.curves.values() for rank in curve.ranks if rank >= 0}
        parts = [f"{self._history.reports:,} values"]
        if ranks:
            parts.append(f"{len(ranks)} rank{'s' if len(ranks) > 1 else ''}")
        if self._history.left_out:
            parts.append(f"{len(self._history.left_out)} more metrics not shown")
        return " · ".join(parts)

    def _receive(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        kind = content.get("kind") if isinstance(content, dict) else None
        if kind == "stop" and self.running and self._on_stop is not None:
            self._on_stop()
        elif kind == "by_rank":
            self._by_rank = bool(content.get("value"))
            self._changed = True
            if not self.running:
                self._send_state()

    def __repr__(self) -> str:
        lasts = ", ".join(f"{name}={number(curve.last)}" for name, curve in self._history.curves.items())
        return f"{self.title or 'Curves'}: {lasts or 'no metrics yet'}"


class _Blocks:
    """Arrays laid end to end; each is known by its offset and length in float64s."""

    def __init__(self) -> None:
        self._arrays: list[NDArray[np.float64]] = []
        self._length = 0

    def add(self, array: NDArray[np.float64]) -> list[int]:
        place = [self._length, len(array)]
        self._arrays.append(array)
        self._length += len(array)
        return place

    def tobytes(self) -> bytes:
        return np.concatenate([np.zeros(0), *self._arrays]).astype("<f8").tobytes()


def _panel(curve: Curve, blocks: _Blocks, by_rank: bool) -> dict[str, Any]:
    """Describe one metric's panel, JSON-able; its points go to ``blocks``."""
    together = curve.together.points()
    many = curve.world_size > 1
    if many and by_rank:
        ranks = sorted(curve.ranks.items())
        series = [_series(rank_label(rank), buckets.points(), blocks, False) for rank, buckets in ranks]
    else:
        label = f"mean of {curve.world_size} ranks" if many else "value"
        if not many and curve.together.width > 1:
            label = f"mean of {curve.together.width} steps"
        series = [_series(label, together, blocks, together.band)]
    return {
        "name": curve.name,
        "ranks": curve.world_size,
        "series": series,
        "marks": blocks.add(together.marks),
        "note": _note(curve),
        "summary": summary_rows(curve),
    }


def _series(label: str, points: Points, blocks: _Blocks, band: bool) -> dict[str, Any]:
    series: dict[str, Any] = {"label": label, "x": blocks.add(points.x), "mean": blocks.add(points.mean)}
    if band:
        series |= {"low": blocks.add(points.low), "high": blocks.add(points.high)}
    return series


def rank_label(rank: int) -> str:
    """The rank as shown to people."""
    return "notebook" if rank < 0 else f"rank {rank}"


def _note(curve: Curve) -> str:
    if curve.first_not_finite is None:
        return ""
    step, rank, value = curve.first_not_finite
    where = f", {rank_label(rank)}" if curve.world_size > 1 else ""
    count = f"{curve.not_finite:,} values not finite; first" if curve.not_finite > 1 else "not finite:"
    return f"{count} {number(value)} at step {step:,}{where}"
