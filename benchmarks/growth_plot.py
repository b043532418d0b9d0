"""The picture of a suite that grows: one panel a measure, both axes logarithmic, so that a straight line is a power."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import vl_convert

_VEGA_VERSION = "5.8"
_TEXT = "#808890"  # of middle lightness: the picture is shown on a white and on a black ground
_DECADES = [10.0**exponent for exponent in range(-3, 5)]
_COLOURS = ["#3a8cc9", "#e8590c", "#2f9e6e", "#a36bd1"]


class Point(NamedTuple):
    """One value of one turn: its panel, its line, how many there are of what grows, and the value."""

    panel: str
    side: str
    count: int
    value: float


def svg(points: Sequence[Point], what: str = "ranks", base: int = 2) -> str:
    """Draw medians as lines, and every turn as a dot.

    Args:
        what: It is that grows.
        base: Of the numbers it grows to.
    """
    return str(vl_convert.vegalite_to_svg(json.dumps(_specification(points, what, base)), vl_version=_VEGA_VERSION))


def _specification(points: Sequence[Point], what: str, base: int) -> dict[str, Any]:
    sides = list(dict.fromkeys(point.side for point in points))
    sizes = sorted({point.count for point in points})
    panels = list(dict.fromkeys(point.panel for point in points))
    colour = {
        "field": "side",
        "type": "nominal",
        "scale": {"domain": sides, "range": _COLOURS[: len(sides)]},
        "legend": {"title": None, "orient": "bottom", "symbolType": "stroke", "symbolStrokeWidth": 2},
    }
    x = {
        "field": "count",
        "type": "quantitative",
        "scale": {"type": "log", "base": base, "nice": False},
        "axis": {"title": what, "values": sizes, "format": "~s", "grid": False},
    }
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "description": f"{', '.join(panels)} by number of {what}, of {', '.join(sides)}",
        "background": "transparent",
        "padding": 8,
        "concat": [_panel([p for p in points if p.panel == panel], panel, x, colour) for panel in panels],
        "columns": 2,
        "spacing": {"row": 28, "column": 36},
        "config": {
            "font": "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif",
            "view": {"stroke": None},
            "axis": {
                "gridColor": _TEXT,
                "gridOpacity": 0.25,
                "domain": False,
                "tickSize": 0,
                "labelPadding": 6,
                "labelColor": _TEXT,
                "titleColor": _TEXT,
                "titleFontWeight": "normal",
            },
            "legend": {"labelColor": _TEXT, "labelFontSize": 12},
            "title": {"color": _TEXT, "anchor": "start", "fontSize": 13, "fontWeight": 600, "offset": 10},
        },
    }


def _panel(points: Sequence[Point], title: str, x: dict[str, Any], colour: dict[str, Any]) -> dict[str, Any]:
    y: dict[str, Any] = {
        "field": "value",
        "type": "quantitative",
        "scale": {"type": "log"},
        "axis": {"title": None, "values": _DECADES, "format": "~g"},
    }
    line = {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {"x": x, "y": y | {"aggregate": "median"}}}
    dots = {"mark": {"type": "point", "filled": True, "size": 22, "opacity": 0.7}, "encoding": {"x": x, "y": y}}
    return {
        "title": title,
        "width": 300,
        "height": 190,
        "data": {"values": [point._asdict() for point in points]},
        "encoding": {"color": colour},
        "layer": [line, dots],
    }
