"""The live curves of runs: panels of metrics, the switches that say how to look at them, Stop and notes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from paibook.metrics import MetricStream
from paibook.widgets.export import FORMATS, export
from paibook.widgets.figure import bundle_of, number, table
from paibook.widgets.output import WidgetOutput
from paibook.widgets.panels import View, panels_of
from paibook.widgets.sources import AXES, Axis, Source
from paibook.widgets.subshells import take_where_sent

_STATIC = Path(__file__).parent / "static"

MESSAGE_SECONDS = 0.1
BYTES_PER_SECOND = 500_000
REPORTS_PER_UPDATE = 50_000


class Curves(anywidget.AnyWidget):
    """Show metric streams while they grow.

    ``panels`` describes the curves, ``data`` holds their points (float64, little endian, found by offset and length in
    ``panels``), ``version`` changes when both are new. The whole decimated state is in these traits, so a reloaded page
    resumes at once. How they are looked at is in traits that both sides may set: ``axis``, ``by_rank``, ``log``,
    ``smoothing``, ``zoom``, ``filter``, ``overlays``. The page sends three messages: stop, note and export.

    JupyterLab delivers what the page does on a thread of its own (a kernel subshell), so buttons work while a cell
    keeps the kernel's main thread; hence the lock.

    Args:
        streams: A run's metrics, or those of several by label; what is already in them is shown too.
        title: Shown above the curves.
        on_stop: Called when Stop is clicked, from any thread; None shows no Stop button.
        view: Traits to begin with.

    Raises:
        traitlets.TraitError: A trait of ``view`` is not known or has a value that is not allowed.
    """

    _esm = _STATIC / "curves.js"
    _css = _STATIC / "curves.css"

    title = traitlets.Unicode("").tag(sync=True)
    status = traitlets.Unicode("").tag(sync=True)
    running = traitlets.Bool(True).tag(sync=True)
    can_stop = traitlets.Bool(False).tag(sync=True)
    panels: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    names: traitlets.List[str] = traitlets.List(traitlets.Unicode()).tag(sync=True)
    axes: traitlets.List[str] = traitlets.List(traitlets.Unicode()).tag(sync=True)
    notes: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    data = traitlets.Bytes(b"").tag(sync=True)
    version = traitlets.Int(0).tag(sync=True)

    axis = traitlets.Enum(AXES, "step").tag(sync=True)
    by_rank = traitlets.Bool(False).tag(sync=True)
    log = traitlets.Bool(False).tag(sync=True)
    smoothing = traitlets.Float(0.0, min=0.0, max=0.99).tag(sync=True)
    zoom: traitlets.List[float] = traitlets.List(traitlets.Float(), maxlen=2).tag(sync=True)
    filter = traitlets.Unicode("").tag(sync=True)
    overlays: traitlets.List[list[str]] = traitlets.List(traitlets.List(traitlets.Unicode())).tag(sync=True)

    def __init__(
        self,
        streams: MetricStream | Mapping[str, MetricStream],
        title: str = "",
        on_stop: Callable[[], Any] | None = None,
        **view: Any,
    ) -> None:
        named = {"": streams} if isinstance(streams, MetricStream) else dict(streams)
        if unknown := sorted(set(view) - {"axis", "by_rank", "log", "smoothing", "zoom", "filter", "overlays"}):
            raise traitlets.TraitError(f"curves have no setting {unknown[0]!r}")
        super().__init__(title=title, can_stop=on_stop is not None, **view)
        self._sources = [Source(label, stream) for label, stream in named.items()]
        self._on_stop = on_stop
        self._changed = True
        self._next = 0.0
        self._lock = threading.RLock()
        if self.filter:
            self._pick()
        self.observe(self._look, ["axis", "by_rank", "zoom", "filter", "overlays"])
        self.on_msg(self._receive)
        take_where_sent(self.comm)

    def update(self) -> None:
        """Send what is new, at most ten times a second and ``BYTES_PER_SECOND``; cheap when nothing is."""
        with self._lock:
            now = time.monotonic()
            self._take(REPORTS_PER_UPDATE)
            if self._changed and now >= self._next:
                self._send_state()
                self._next = now + max(MESSAGE_SECONDS, len(self.data) / BYTES_PER_SECOND)

    def show_all(self, running: bool) -> None:
        """Send everything there is, now."""
        with self._lock:
            self._take(None)
            self.running = running
            self._send_state()

    def close_with_static(self) -> dict[str, Any]:
        """Show the final state as no longer running; return the MIME bundle that stands for it without a kernel."""
        self.show_all(running=False)
        return self.static()

    def static(self) -> dict[str, Any]:
        """The MIME bundle of the whole runs as they are now."""
        return bundle_of({s.label: s.history for s in self._sources}, self.title, self._noted())

    def text(self) -> str:
        """First, last and best value of each metric as they are now."""
        return table({s.label: s.history for s in self._sources}, self.title, self._noted())

    def _ipython_display_(self, **_options: Any) -> None:
        WidgetOutput(self, {"text/plain": self.text()})

    def set_state(self, sync_data: Any) -> None:
        """Take what the page changed, when nothing else is changing."""
        with self._lock:
            super().set_state(sync_data)

    def _take(self, limit: int | None) -> None:
        for source in self._sources:
            self._changed = source.take(limit) or self._changed

    def _send_state(self) -> None:
        self._changed = False
        panels, data = panels_of(self._sources, View(self.axis, self.by_rank, self.overlays))
        with self.hold_sync():
            self.status = self._status()
            self.names = list(dict.fromkeys(name for source in self._sources for name in source.stream.names))
            self.axes = [axis for axis in AXES if all(source.has(axis) for source in self._sources)]
            self.notes = [
                {"x": self._place(source, note.step, note.time), "text": self._labelled(source, note.text)}
                for source in self._sources
                for note in source.stream.notes
            ]
            self.panels = panels
            self.data = data
            self.version += 1

    def _place(self, source: Source, step: int | None, when: float) -> float:
        if self.axis == "time":
            return source.since_began(when)
        curve = next(iter(source.history.curves.values()), None)
        return source.place(self.axis, curve, step or 0) if curve is not None else float(step or 0)

    def _noted(self) -> list[tuple[int, str]]:
        return [
            (note.step or 0, self._labelled(source, note.text))
            for source in self._sources
            for note in source.stream.notes
        ]

    def _labelled(self, source: Source, text: str) -> str:
        return f"{source.label}: {text}" if len(self._sources) > 1 else text

    def _status(self) -> str:
        histories = [source.history for source in self._sources]
        curves = [curve for history in histories for curve in history.curves.values()]
        ranks = {rank for curve in curves for rank in curve.ranks if rank >= 0}
        parts = [f"{len(histories)} runs"] if len(histories) > 1 else []
        parts.append(f"{sum(history.reports for history in histories):,} values")
        if ranks:
            parts.append(f"{len(ranks)} rank{'s' if len(ranks) > 1 else ''}")
        left_out = set().union(*(history.left_out for history in histories))
        if left_out:
            parts.append(f"{len(left_out)} more metrics not shown")
        return " · ".join(parts)

    def _look(self, change: Any) -> None:
        with self._lock:
            if change["name"] == "filter":
                self._pick()
            if change["name"] == "axis" and self.zoom:
                self.zoom = []  # it was in the other axis's unit; comes back here
                return
            if change["name"] in ("zoom", "filter"):
                self._zoom()
            self._send_state()

    def _pick(self) -> None:
        for source in self._sources:
            source.pick(self.filter)

    def _zoom(self) -> None:
        axis: Axis = self.axis
        for source in self._sources:
            if len(self.zoom) == 2 and self.zoom[0] < self.zoom[1]:
                source.zoom(axis, *self.zoom)
            else:
                source.zoom_out()

    def _receive(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        kind = content.get("kind") if isinstance(content, dict) else None
        if kind == "stop" and self.running and self._on_stop is not None:
            self._on_stop()
            self.send({"kind": "stopping"})
        elif kind == "note" and str(content.get("text", "")).strip():
            with self._lock:
                self._sources[0].stream.note(str(content["text"]))
                self._send_state()
            self.send({"kind": "noted"})
        elif kind == "export" and content.get("format") in FORMATS:
            self._export(content["format"])

    def _export(self, kind: str) -> None:
        try:
            made = export({s.label: s.stream for s in self._sources}, kind, self.title)
        except (OSError, ValueError, RuntimeError) as error:
            self.send({"kind": "failed", "text": f"the export failed: {error}"})
        else:
            self.send({"kind": "exported", "format": kind, "type": FORMATS[kind]}, [made])

    def __repr__(self) -> str:
        curves: Sequence[Any] = [curve for source in self._sources for curve in source.history.curves.values()]
        lasts = ", ".join(f"{curve.name}={number(curve.last)}" for curve in curves)
        return f"{self.title or 'Curves'}: {lasts or 'no metrics yet'}"
