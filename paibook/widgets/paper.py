"""Metrics as a matplotlib figure, for papers."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from paibook.errors import PaibookError
from paibook.metrics import MetricStream
from paibook.widgets.decimation import Curve, History
from paibook.widgets.panels import rank_label

PANEL_INCHES = (3.4, 2.4)  # a column of a two-column page is 3.3 to 3.5 wide


def figure(
    streams: Mapping[str, MetricStream],
    names: Sequence[str] | None = None,
    columns: int = 2,
    by_rank: bool = False,
    log: bool = False,
) -> Any:
    """Draw metrics with matplotlib.

    Args:
        streams: Runs by label; with several there is a legend.
        names: Which metrics, one axes each; by default the first twelve.
        columns: Axes in a row.
        by_rank: One line a rank instead of the mean and the range of all.
        log: Logarithmic values.

    Returns:
        A ``matplotlib.figure.Figure`` of its own, which pyplot does not know and need not close.

    Raises:
        PaibookError: matplotlib is not installed, or no run has one of the metrics; names it.
    """
    drawing = _drawing()
    picked = (lambda name: True) if names is None else set(names).__contains__
    runs = {label: History(stream.columns(), picked) for label, stream in streams.items()}
    known = list(dict.fromkeys(name for history in runs.values() for name in history.curves))
    for name in names or ():
        if name not in known:
            logged = list(dict.fromkeys(name for stream in streams.values() for name in stream.names))
            raise PaibookError(f"no metric is called {name!r}; logged: {', '.join(logged[:20]) or 'none'}")
    chosen = list(names) if names else known[:12]
    if not chosen:
        raise PaibookError("there is nothing to draw: no metrics were logged")
    width, rows = min(columns, len(chosen)), math.ceil(len(chosen) / columns)
    drawn = drawing(figsize=(PANEL_INCHES[0] * width, PANEL_INCHES[1] * rows), layout="constrained")
    for place, name in enumerate(chosen):
        axes = drawn.add_subplot(rows, width, place + 1)
        for i, (label, history) in enumerate(runs.items()):
            if name in history.curves:
                _draw(axes, history.curves[name], label if len(runs) > 1 else "", f"C{i}", by_rank)
        axes.set_title(_plain(name), fontsize=9, loc="left")
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        if log:
            axes.set_yscale("log")
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=7, frameon=False)
    return drawn


def _drawing() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PaibookError("run.figure() needs matplotlib: pip install 'paibook[figures]'") from error

    class Drawing(Figure):
        """A figure that a notebook shows without pyplot."""

        def _repr_png_(self) -> bytes:
            out = io.BytesIO()
            self.savefig(out, format="png", dpi=144)
            return out.getvalue()

    return Drawing


def _draw(axes: Any, curve: Curve, label: str, colour: str, by_rank: bool) -> None:
    if by_rank and curve.world_size > 1:
        for rank, buckets in sorted(curve.ranks.items()):
            points = buckets.points()
            text = " · ".join(filter(None, [label, rank_label(rank)]))
            axes.plot(points.x, points.mean, linewidth=1, label=_plain(text))
        return
    points = curve.together.points()
    axes.plot(points.x, points.mean, color=colour, linewidth=1.2, label=_plain(label) or None)
    if points.band:
        axes.fill_between(points.x, points.low, points.high, color=colour, alpha=0.2, linewidth=0)
    if len(points.marks):
        low = axes.get_xaxis_transform()  # a cross at the foot wherever a value was not finite
        axes.plot(points.marks, [0.03] * len(points.marks), "x", color="C3", markersize=4, transform=low)


def _plain(text: str) -> str:
    """Text that matplotlib takes as it stands: a dollar begins no formula, and an underscore hides nothing."""
    escaped = text.replace("$", r"\$")
    return f"\u200b{escaped}" if escaped.startswith("_") else escaped
