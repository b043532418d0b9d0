"""The static figure of a run's metrics: what a saved notebook, an HTML export and a terminal show without a kernel."""

from __future__ import annotations

import json
import math
from typing import Any

from paibook.metrics import MetricStream
from paibook.widgets.decimation import Curve, History, Points

VEGALITE = "application/vnd.vegalite.v5+json"
POINTS = 900  # over all panels: keeps the bundle well under 200 kB
POINTS_PER_PANEL = 300
PANELS = 12
MARKS_PER_PANEL = 20

_FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
_BLANK = "\u00a0"  # takes a line's height, unlike an empty text
# Of middle lightness: the same figure is shown on a white and on a black ground.
_LINE = "#3a8cc9"
_WARNING = "#e8590c"
_X = {
    "field": "x",
    "type": "quantitative",
    "axis": {"title": None, "grid": False, "tickCount": 6, "labelFlush": False},
    "scale": {"nice": False},
}
_Y = {"type": "quantitative", "axis": {"title": None, "tickCount": 5, "minExtent": 40}, "scale": {"zero": False}}
_MEAN = {"field": "mean", **_Y}
_VEGA_VERSION = "5.8"  # the oldest renderer offered; the specification uses nothing newer than JupyterLab's 5.6


def bundle(stream: MetricStream, title: str = "") -> dict[str, Any]:
    """Draw every metric of ``stream`` as one MIME bundle: Vega-Lite, SVG and plain text."""
    return bundle_of(History(stream.since(0)), title)


def bundle_of(history: History, title: str = "") -> dict[str, Any]:
    """Draw decimated curves; only text when nothing was reported.

    JupyterLab shows the Vega-Lite part; nbconvert, GitHub and viewers without Vega the SVG; a terminal the text. There
    is no ``text/html`` part, because nbconvert would prefer it to the picture.
    """
    text = {"text/plain": table(history, title)}
    if not history.curves:
        return text
    return {VEGALITE: vegalite(history, title), "image/svg+xml": svg(history, title), **text}


def svg(history: History, title: str = "") -> str:
    """Render the figure as SVG, offline, on a white ground."""
    import vl_convert  # large, and needed once a run

    specification = vegalite(history, title, interactive=False)
    specification["background"] = "white"
    return str(vl_convert.vegalite_to_svg(json.dumps(specification), vl_version=_VEGA_VERSION, allowed_base_urls=[]))


def vegalite(history: History, title: str = "", interactive: bool = True) -> dict[str, Any]:
    """Describe the figure in Vega-Lite 5 with its data inline: one panel per metric, two to a row.

    Args:
        history: The curves.
        title: Shown above them.
        interactive: Add the value under the pointer. Colours of text and grid are left to the viewer's theme then.
    """
    curves = list(history.curves.values())[:PANELS]
    single = len(curves) == 1
    capacity = min(POINTS_PER_PANEL, POINTS // len(curves))
    size = {"width": 560, "height": 220} if single else {"width": 320, "height": 170}
    panels = [size | _panel(curve, capacity, size["height"]) for curve in curves]
    if interactive:
        for i, panel in enumerate(panels):
            panel["layer"].append(_hover(f"hover_{i}", curves[i].together.points().band))
    if not any(panel["title"]["subtitle"] != _BLANK for panel in panels):
        for panel in panels:
            del panel["title"]["subtitle"]
    specification: dict[str, Any] = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "description": description(history, title),
        "background": "transparent",
        "padding": 8,
        "config": _config(interactive),
        "usermeta": {"embedOptions": {"actions": False, "renderer": "svg"}},
    }
    if title:
        specification["title"] = {"text": title, "anchor": "start", "fontSize": 14, "fontWeight": 600, "offset": 12}
    return specification | {"concat": panels, "columns": 1 if single else 2, "spacing": {"row": 24, "column": 32}}


def description(history: History, title: str = "") -> str:
    """Say in one sentence what the figure shows, for a screen reader."""
    parts = [f"{c.name} from {number(c.first)} to {number(c.last)}" for c in history.curves.values()]
    return f"{title or 'Metrics'}: {'; '.join(parts[:PANELS])}"


def table(history: History, title: str = "") -> str:
    """Set the metrics as plain text, one line each: name, first, last, best, last step and a sparkline."""
    if not history.curves:
        return f"{title}: no metrics" if title else "no metrics"
    head = ["metric", "first", "last", "best", "step", ""]
    rows = [head]
    for curve in history.curves.values():
        rows.append([_short(curve.name), *summary_rows(curve), sparkline(curve.together.reduced(24).points())])
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = [title] if title else []
    for row in rows:
        numbers = [cell.rjust(width) for cell, width in zip(row[1:5], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *numbers, row[5]]).rstrip())
    if history.left_out:
        lines.append(f"and {len(history.left_out)} more metrics")
    return "\n".join(lines)


def summary_rows(curve: Curve) -> list[str]:
    """First, last and best value and last step, as text."""
    return [number(curve.first), number(curve.last), number(curve.best), f"{curve.last_step:,}"]


def sparkline(points: Points) -> str:
    """Draw the means with eight block heights; x marks what was not finite.

    >>> import numpy as np
    >>> x = np.arange(4.0)
    >>> sparkline(Points(x, np.array([4.0, 2.0, np.nan, 1.0]), x, x, x))
    '█▃x▁'
    """
    finite = [value for value in points.mean if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    scale = 7 / (high - low) if high > low else 0.0
    return "".join("▁▂▃▄▅▆▇█"[round((v - low) * scale)] if math.isfinite(v) else "x" for v in points.mean)


def number(value: float) -> str:
    """Four significant digits.

    >>> number(0.41234), number(float("nan")), number(12.0)
    ('0.4123', 'NaN', '12')
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:.4g}"


def _short(name: str, length: int = 40) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def _panel(curve: Curve, capacity: int, height: int) -> dict[str, Any]:
    """Describe one metric: heading, data, and from back to front the band, the line, lone points and the crosses."""
    buckets = curve.together.reduced(capacity)
    points = buckets.points()
    ranks = curve.world_size
    what = f"mean and range of {ranks} ranks" if ranks > 1 else ""
    what = what or (f"mean and range of {buckets.width} steps" if buckets.width > 1 and points.band else "")
    heading = {"text": _short(curve.name), "anchor": "start", "fontSize": 12, "fontWeight": 600, "offset": 8}
    # Also when empty, so that the headings of a row stay in line.
    heading |= {"subtitle": what or _BLANK, "subtitleFontSize": 11, "subtitlePadding": 2}
    records = _records(points)
    part = {"detail": {"field": "part"}}
    layers: list[dict[str, Any]] = []
    if points.band:
        area = {"type": "area", "color": _LINE, "opacity": 0.25, "line": False}
        layers.append(
            {"mark": area, "encoding": {"x": _X, "y": {"field": "low", **_Y}, "y2": {"field": "high"}, **part}}
        )
    line = {"type": "line", "color": _LINE, "strokeWidth": 1.75}
    layers.append({"mark": line, "encoding": {"x": _X, "y": _MEAN, **part}})
    if any("alone" in record for record in records):
        point = {"type": "point", "color": _LINE, "filled": True, "size": 20}
        layers.append({"transform": [{"filter": "datum.alone"}], "mark": point, "encoding": {"x": _X, "y": _MEAN}})
    if len(points.marks):
        layers.append(_crosses(points, height - 6))
    return {"title": heading, "data": {"values": records}, "layer": layers}


def _crosses(points: Points, y: int) -> dict[str, Any]:
    steps = points.marks[:: max(1, math.ceil(len(points.marks) / MARKS_PER_PANEL))]
    return {
        "data": {"values": [{"x": _round(step, 9)} for step in steps]},
        "mark": {"type": "text", "text": "×", "color": _WARNING, "fontSize": 14, "tooltip": "not finite"},
        "encoding": {"x": _X, "y": {"value": y}},
    }


def _hover(name: str, band: bool) -> dict[str, Any]:
    fields = {"mean": "mean", "low": "low", "high": "high"} if band else {"mean": "value"}
    tooltip = [{"field": "x", "type": "quantitative", "title": "step", "format": ",.0f"}]
    tooltip += [
        {"field": field, "type": "quantitative", "title": title, "format": ".4~g"} for field, title in fields.items()
    ]
    nearest = {"type": "point", "on": "mouseover", "nearest": True, "clear": "mouseout"}
    return {
        "params": [{"name": name, "select": nearest}],
        "mark": {"type": "point", "filled": True, "color": _LINE, "size": 40},
        "encoding": {
            "x": _X,
            "y": _MEAN,
            "opacity": {"condition": {"param": name, "empty": False, "value": 1}, "value": 0},
            "tooltip": tooltip,
        },
    }


def _records(points: Points) -> list[dict[str, Any]]:
    """One record per bucket; ``part`` numbers the stretches between gaps, so that no line is drawn across one.

    A stretch of a single bucket is ``alone``: no line shows it.
    """
    finite = [math.isfinite(mean) for mean in points.mean]
    records: list[dict[str, Any]] = []
    part = 0
    for i, (x, mean, low, high) in enumerate(zip(points.x, points.mean, points.low, points.high, strict=True)):
        if not finite[i]:
            part += 1
            continue
        record = {"x": _round(x, 9), "mean": _round(mean)}
        if points.band:
            record |= {"low": _round(low), "high": _round(high)}
        if part:
            record["part"] = part
        if not any(finite[max(0, i - 1) : i] + finite[i + 1 : i + 2]):
            record["alone"] = True
        records.append(record)
    return records


def _round(value: float, digits: int = 6) -> float | int:
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 2**53 else rounded


def _config(interactive: bool) -> dict[str, Any]:
    """Calm axes; explicit text colours only where no theme gives them."""
    grid = {"gridColor": "#808080", "gridOpacity": 0.2, "domain": False, "tickSize": 0, "labelPadding": 6}
    config: dict[str, Any] = {
        "font": _FONT,
        "view": {"stroke": None},
        "axis": grid | {"labelFontSize": 11},
        "concat": {"columns": 2},
    }
    if not interactive:
        config["axis"] |= {"labelColor": "#57606a"}
        config["title"] = {"color": "#1f2328", "subtitleColor": "#57606a"}
    return config
