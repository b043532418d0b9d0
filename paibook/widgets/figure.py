"""The static figure of a run's metrics: what a saved notebook, an HTML export and a terminal show without a kernel."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from paibook.metrics import MetricStream
from paibook.widgets.decimation import Buckets, Curve, History, Points

VEGALITE = "application/vnd.vegalite.v5+json"
POINTS = 750  # over all panels: keeps the bundle well under 200 kB
POINTS_PER_PANEL = 300
PANELS = 12
MARKS_PER_PANEL = 20

_FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
_BLANK = "\u00a0"  # takes a line's height, unlike an empty text
# Of middle lightness: the same figure is shown on a white and on a black ground.
_LINE = "#3a8cc9"
_LINES = (_LINE, "#d9772b", "#35a269", "#b85c9e", "#8272c4", "#9a7d2e", "#1d9aa6", "#7d8590")
_WARNING = "#e8590c"
_NOTE = "#808890"
# The wheel alone scrolls the notebook.
_ZOOM = {"type": "interval", "encodings": ["x"], "zoom": "wheel![event.shiftKey]"}
_X = {
    "field": "x",
    "type": "quantitative",
    "axis": {"title": None, "grid": False, "tickCount": 6, "labelFlush": False},
    "scale": {"nice": False},
}
_Y = {"type": "quantitative", "axis": {"title": None, "tickCount": 5, "minExtent": 40}, "scale": {"zero": False}}
_MEAN = {"field": "mean", **_Y}
_VEGA_VERSION = "5.8"  # the oldest renderer offered; the specification uses nothing newer than JupyterLab's 5.6


Runs = Mapping[str, History]  # by label, which is not shown where there is one only
Notes = Sequence[tuple[int, str]]  # step and text


def bundle(stream: MetricStream, title: str = "") -> dict[str, Any]:
    """Draw every metric of ``stream`` as one MIME bundle: Vega-Lite, SVG and plain text."""
    return bundle_of({"": History(stream.columns())}, title, [(note.step or 0, note.text) for note in stream.notes])


def bundle_of(runs: Runs, title: str = "", notes: Notes = ()) -> dict[str, Any]:
    """Draw decimated curves; only text when nothing was reported.

    JupyterLab shows the Vega-Lite part; nbconvert, GitHub and viewers without Vega the SVG; a terminal the text. There
    is no ``text/html`` part, because nbconvert would prefer it to the picture.
    """
    text = {"text/plain": table(runs, title, notes)}
    if not any(history.curves for history in runs.values()):
        return text
    return {VEGALITE: vegalite(runs, title, notes), "image/svg+xml": svg(runs, title, notes), **text}


def svg(runs: Runs, title: str = "", notes: Notes = ()) -> str:
    """Render the figure as SVG, offline, on a white ground."""
    import vl_convert  # large, and needed once a run

    return str(vl_convert.vegalite_to_svg(_printed(runs, title, notes), vl_version=_VEGA_VERSION, allowed_base_urls=[]))


def png(runs: Runs, title: str = "", notes: Notes = ()) -> bytes:
    """Render the figure as PNG with two pixels to the point, offline, on a white ground."""
    import vl_convert

    printed = _printed(runs, title, notes)
    return bytes(vl_convert.vegalite_to_png(printed, vl_version=_VEGA_VERSION, scale=2, allowed_base_urls=[]))


def _printed(runs: Runs, title: str, notes: Notes) -> str:
    return json.dumps(vegalite(runs, title, notes, interactive=False) | {"background": "white"})


def vegalite(runs: Runs, title: str = "", notes: Notes = (), interactive: bool = True) -> dict[str, Any]:
    """Describe the figure in Vega-Lite 5 with its data inline: one panel per metric, two to a row.

    Args:
        runs: The curves, by the run's label.
        title: Shown above them.
        notes: Drawn as dashed lines at their steps.
        interactive: Add the value under the pointer, and zoom by Shift and the wheel. Colours of text and grid are left
            to the viewer's theme then.
    """
    names = _names(runs)[:PANELS]
    single = len(names) == 1
    capacity = max(20, min(POINTS_PER_PANEL, POINTS // len(names)) // len(runs))
    size = {"width": 560, "height": 220} if single else {"width": 320, "height": 170}
    panels = []
    for i, name in enumerate(names):
        shown = {label: history.curves[name] for label, history in runs.items() if name in history.curves}
        panels.append(size | _panel(shown, tuple(runs), capacity, size["height"], notes))
        if interactive:
            first = next(iter(shown.values()))
            panels[-1]["layer"].append(_hover(f"hover_{i}", first.together.points().band))
            panels[-1]["layer"][0]["params"] = [{"name": f"zoom_{i}", "bind": "scales", "select": _ZOOM}]
    if not any(panel["title"]["subtitle"] != _BLANK for panel in panels):
        for panel in panels:
            del panel["title"]["subtitle"]
    specification: dict[str, Any] = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "description": description(runs, title),
        "background": "transparent",
        "padding": 8,
        "config": _config(interactive),
        "usermeta": {"embedOptions": {"actions": False, "renderer": "svg"}},
    }
    if title:
        specification["title"] = {"text": title, "anchor": "start", "fontSize": 14, "fontWeight": 600, "offset": 12}
    return specification | {"concat": panels, "columns": 1 if single else 2, "spacing": {"row": 24, "column": 32}}


def description(runs: Runs, title: str = "") -> str:
    """Say in one sentence what the figure shows, for a screen reader."""
    parts = [f"{name} from {number(curve.first)} to {number(curve.last)}" for name, curve in _labelled(runs)]
    return f"{title or 'Metrics'}: {'; '.join(parts[:PANELS])}"


def table(runs: Runs, title: str = "", notes: Notes = ()) -> str:
    """Set the metrics as plain text, one line each: name, first, last, best, last step and a sparkline."""
    labelled = _labelled(runs)
    if not labelled:
        return f"{title}: no metrics" if title else "no metrics"
    head = ["metric", "first", "last", "best", "step", ""]
    rows = [head]
    for name, curve in labelled:
        rows.append([_short(name), *summary_rows(curve), sparkline(curve.together.reduced(24).points())])
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = [title] if title else []
    for row in rows:
        numbers = [cell.rjust(width) for cell, width in zip(row[1:5], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *numbers, row[5]]).rstrip())
    left_out = set().union(*(history.left_out for history in runs.values()))
    if left_out:
        lines.append(f"and {len(left_out)} more metrics")
    lines += [f"note at step {step:,}: {text}" for step, text in notes]
    return "\n".join(lines)


def _names(runs: Runs) -> list[str]:
    return list(dict.fromkeys(name for history in runs.values() for name in history.curves))


def _labelled(runs: Runs) -> list[tuple[str, Curve]]:
    """Every curve, metric by metric; named by its run too where there are several."""
    many = len(runs) > 1
    return [
        (f"{name} · {label}" if many else name, history.curves[name])
        for name in _names(runs)
        for label, history in runs.items()
        if name in history.curves
    ]


def summary_rows(curve: Curve) -> list[str]:
    """First, last and best value and last step, as text."""
    return [number(curve.first), number(curve.last), number(curve.best), f"{curve.last_step:,}"]


def sparkline(points: Points) -> str:
    """Draw the means with eight block heights; x marks what was not finite.

    >>> import numpy as np
    >>> x = np.arange(4.0)
    >>> sparkline(Points(x, np.array([4.0, 2.0, np.nan, 1.0]), x, x, x, x))
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


def _panel(
    shown: Mapping[str, Curve], labels: Sequence[str], capacity: int, height: int, notes: Notes
) -> dict[str, Any]:
    """Describe one metric: heading, data, and from back to front bands, notes, lines, lone points, best, crosses."""
    first = next(iter(shown.values()))
    buckets = {label: curve.together.reduced(capacity) for label, curve in shown.items()}
    heading = {"text": _short(first.name), "anchor": "start", "fontSize": 12, "fontWeight": 600, "offset": 8}
    # Also when empty, so that the headings of a row stay in line.
    what = _what(first, next(iter(buckets.values())))
    heading |= {"subtitle": what or _BLANK, "subtitleFontSize": 11, "subtitlePadding": 2}
    records: list[dict[str, Any]] = []
    bands: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    crosses: list[dict[str, Any]] = []
    for i, (label, curve) in enumerate(shown.items()):
        points = buckets[label].points()
        own = _records(points)
        alone = any("alone" in record for record in own)
        if len(labels) > 1:
            own = [record | {"run": i} for record in own]
        records += own
        colour = _LINES[labels.index(label) % len(_LINES)]
        which = [{"filter": f"datum.run == {i}"}] if len(labels) > 1 else []
        part = {"detail": {"field": "part"}}
        if points.band:
            area = {"type": "area", "color": colour, "opacity": 0.25 if len(shown) == 1 else 0.15, "line": False}
            encoding = {"x": _X, "y": {"field": "low", **_Y}, "y2": {"field": "high"}, **part}
            bands.append({"transform": which, "mark": area, "encoding": encoding})
        line = {"type": "line", "color": colour, "strokeWidth": 1.75}
        encoding = {"x": _X, "y": _MEAN, **part}
        if len(labels) > 1:
            encoding["color"] = _colour_of(label, labels)
        lines.append({"transform": which, "mark": line, "encoding": encoding})
        if alone:
            point = {"type": "point", "color": colour, "filled": True, "size": 20}
            which = [*which, {"filter": "datum.alone"}]
            lines.append({"transform": which, "mark": point, "encoding": {"x": _X, "y": _MEAN}})
        lines += _best(curve, colour)
        if len(points.marks):
            crosses.append(_crosses(points, height - 6))
    layers = [*bands, *([_noted(notes)] if notes else []), *lines, *crosses]
    for layer in layers:
        if not layer.get("transform", True):
            del layer["transform"]
    return {"title": heading, "data": {"values": records}, "layer": layers}


def _what(curve: Curve, buckets: Buckets) -> str:
    if curve.world_size > 1:
        return f"mean and range of {curve.world_size} ranks"
    return f"mean and range of {buckets.width} steps" if buckets.width > 1 and buckets.points().band else ""


def _colour_of(label: str, labels: Sequence[str]) -> dict[str, Any]:
    colours = [_LINES[i % len(_LINES)] for i in range(len(labels))]
    legend = {"title": None, "orient": "bottom", "symbolType": "stroke", "labelLimit": 300}
    return {"datum": label, "scale": {"domain": list(labels), "range": colours}, "legend": legend}


def _best(curve: Curve, colour: str) -> list[dict[str, Any]]:
    if math.isnan(curve.best) or curve.reports < 2 or curve.name == "epoch":
        return []
    mark = {"type": "point", "color": colour, "size": 55, "strokeWidth": 1.5, "filled": False}
    mark |= {"tooltip": f"best: {number(curve.best)} at step {curve.best_step:,}"}
    values = [{"x": curve.best_step, "mean": _round(curve.best)}]
    return [{"data": {"values": values}, "mark": mark, "encoding": {"x": _X, "y": _MEAN}}]


def _noted(notes: Notes) -> dict[str, Any]:
    return {
        "data": {"values": [{"x": step, "note": text} for step, text in notes[-MARKS_PER_PANEL:]]},
        "mark": {"type": "rule", "color": _NOTE, "strokeDash": [4, 3], "tooltip": {"content": "data"}},
        "encoding": {"x": _X},
    }


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
