"""A source of curves: one run's metrics, read as they come and kept decimated, whole and in the stretch looked at."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from paibook.metrics import Columns, MetricStream
from paibook.widgets.decimation import Curve, History, Points, Window

Axis = Literal["step", "epoch", "time"]
AXES: tuple[Axis, ...] = ("step", "epoch", "time")
EPOCH = "epoch"  # the metric that says which epoch a step belongs to


class Source:
    """One run as a source of curves.

    Args:
        label: What the run is called among others.
        stream: Its metrics; what is already in it is read too.
    """

    def __init__(self, label: str, stream: MetricStream) -> None:
        self.label = label
        self.stream = stream
        self.history = History()
        self._detail: History | None = None
        self._epochs = History(picked=EPOCH.__eq__)
        self._began: float | None = None
        self._filter = ""
        self._read = 0

    def take(self, limit: int | None = None) -> bool:
        """Read at most ``limit`` new reports; whether there were any."""
        if len(self.stream) <= self._read:
            return False
        new = self.stream.columns(self._read, None if limit is None else self._read + limit)
        self._read += len(new)
        if self._began is None:
            self._began = float(new.time[0])
        for history in (self.history, self._detail, self._epochs):
            if history is not None:
                history.add(new)
        return True

    def pick(self, text: str) -> None:
        """Keep curves of the names that contain ``text``, whatever its case; of all of them when it is empty."""
        self._filter = text.casefold()
        self.history = History(self._so_far(), self._picked)

    def zoom(self, axis: Axis, low: float, high: float) -> None:
        """Keep the stretch from ``low`` to ``high`` in more detail."""
        self._detail = History(self._so_far(), self._picked, self._window(axis, low, high))

    def zoom_out(self) -> None:
        """Drop the detail."""
        self._detail = None

    @property
    def shown(self) -> History:
        """The detail while there is one, else all of the run."""
        return self.history if self._detail is None else self._detail

    def has(self, axis: Axis) -> bool:
        """Whether reports can be placed on ``axis``."""
        return axis != "epoch" or EPOCH in self._epochs.curves

    def x(self, axis: Axis, points: Points) -> NDArray[np.float64]:
        """Where points lie on ``axis``: step, epoch (between those reported) or seconds since the run began."""
        if axis == "time":
            return points.time - (self._began or 0.0)
        return self._at(axis, points.x)

    def place(self, axis: Axis, curve: Curve, step: float) -> float:
        """Where one step of a curve lies on ``axis``."""
        if axis != "time":
            return float(self._at(axis, np.array([step]))[0])
        points = curve.together.points()
        order = np.argsort(points.x, kind="stable")
        return float(np.interp(step, points.x[order], points.time[order])) - (self._began or 0.0)

    def since_began(self, time: float) -> float:
        """Seconds since the run's first report."""
        return time - (self._began if self._began is not None else time)

    def _at(self, axis: Axis, steps: NDArray[np.float64]) -> NDArray[np.float64]:
        if axis != "epoch" or not self.has("epoch"):
            return steps
        known = self._epochs.curves[EPOCH].together.points()
        return np.interp(steps, known.x, known.mean)

    def _window(self, axis: Axis, low: float, high: float) -> Window:
        # A little more on both sides, so that lines go on to the edges.
        margin = 0.02 * (high - low)
        low, high = low - margin, high + margin
        if axis == "time":
            return Window("time", low + (self._began or 0.0), high + (self._began or 0.0))
        if axis == "epoch" and self.has("epoch"):
            known = self._epochs.curves[EPOCH].together.points()
            inside = known.x[(known.mean >= low) & (known.mean <= high)]
            return Window("step", inside.min(), inside.max()) if len(inside) else Window("step", low, high)
        return Window("step", low, high)

    def _so_far(self) -> Columns:
        return self.stream.columns(0, self._read)

    def _picked(self, name: str) -> bool:
        return self._filter in name.casefold()
