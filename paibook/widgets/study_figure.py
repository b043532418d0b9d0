"""The static figure of a study: the best so far, parallel coordinates, importance; as Vega-Lite, SVG and text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from paibook.widgets.figure import VEGALITE, number

LINES = 200  # trials drawn, the best of them
ROWS = 10  # trials in the text
_ACCENT, _BEST, _MUTED = "#3a8cc9", "#e8590c", "#8b949e"
_VEGA_VERSION = "5.8"
_CONFIG = {
    "font": "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif",
    "view": {"stroke": None},
    "axis": {"gridColor": "#808080", "gridOpacity": 0.2, "domain": False, "tickSize": 0, "labelPadding": 6},
}

Snapshot = Mapping[str, Any]


def study_bundle(snapshot: Snapshot) -> dict[str, Any]:
    """A study as one MIME bundle: Vega-Lite and SVG where a trial has a value, and text always.

    Args:
        snapshot: As ``Search.snapshot`` gives it.
    """
    text = {"text/plain": study_text(snapshot)}
    if not _valued(snapshot):
        return text
    return {VEGALITE: vegalite(snapshot), "image/svg+xml": _svg(snapshot), **text}


def study_text(snapshot: Snapshot) -> str:
    """The best trials as a table, and what mattered, as plain text."""
    trials = snapshot["trials"]
    lines = [f"{snapshot['name']}: {headline(snapshot)}"]
    paths = [field["path"] for field in snapshot["fields"]]
    rows = [["trial", "state", snapshot["metric"], *paths]]
    for trial in sorted(trials, key=lambda trial: _order(snapshot, trial))[:ROWS]:
        value = "" if trial["value"] is None else number(trial["value"])
        rows.append(
            [str(trial["number"]), trial["state"], value, *(_shown(trial["params"].get(path)) for path in paths)]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if len(trials) > ROWS:
        lines.append(f"and {len(trials) - ROWS} more trials")
    if snapshot["importance"]:
        shares = ", ".join(f"{path} {100 * share:.0f}%" for path, share in snapshot["importance"].items())
        lines.append(f"importance: {shares}")
    return "\n".join(lines)


def headline(snapshot: Snapshot) -> str:
    """How far the study has come, in one line."""
    states = [trial["state"] for trial in snapshot["trials"]]
    counts = {state: states.count(state) for state in ("running", "pruned", "failed", "stopped")}
    parts = [f"{len(states) - counts['running']} of {max(snapshot['wanted'], len(states))} trials"]
    parts += [f"{count} {state}" for state, count in counts.items() if count]
    best = next((trial for trial in snapshot["trials"] if trial["number"] == snapshot["best"]), None)
    if best is not None:
        parts.append(f"best {snapshot['metric']} {number(best['value'])} in trial {best['number']}")
    return " · ".join(parts)


def vegalite(snapshot: Snapshot, interactive: bool = True) -> dict[str, Any]:
    """Describe the figure in Vega-Lite 5 with its data inline.

    Args:
        snapshot: With at least one trial that has a value.
        interactive: Leave the colours of text to the viewer's theme.
    """
    panels = [_history(snapshot), _parallel(snapshot)]
    if snapshot["importance"]:
        panels.append(_importance(snapshot))
    config: dict[str, Any] = {**_CONFIG, "concat": {"columns": 2}}
    if not interactive:
        config["axis"] = {**_CONFIG["axis"], "labelColor": "#57606a", "titleColor": "#57606a"}  # type: ignore[dict-item]
        config["title"] = {"color": "#1f2328", "subtitleColor": "#57606a"}
    title = {"text": snapshot["name"], "subtitle": headline(snapshot), "anchor": "start", "fontSize": 14, "offset": 12}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "description": f"Study {snapshot['name']}: {headline(snapshot)}",
        "background": "transparent",
        "padding": 8,
        "config": config,
        "usermeta": {"embedOptions": {"actions": False, "renderer": "svg"}},
        "title": title,
        "concat": panels,
        "columns": 2,
        "spacing": {"row": 24, "column": 32},
    }


def _svg(snapshot: Snapshot) -> str:
    import vl_convert  # large, and needed once a study

    specification = vegalite(snapshot, interactive=False) | {"background": "white"}
    return str(vl_convert.vegalite_to_svg(json.dumps(specification), vl_version=_VEGA_VERSION, allowed_base_urls=[]))


def _valued(snapshot: Snapshot) -> list[dict[str, Any]]:
    return [trial for trial in snapshot["trials"] if trial["value"] is not None]


def _order(snapshot: Snapshot, trial: Mapping[str, Any]) -> tuple[bool, float]:
    """Done trials first, the best of them first."""
    sign = 1 if snapshot["direction"] == "minimize" else -1
    return trial["state"] != "done", math.inf if trial["value"] is None else sign * trial["value"]


def _shown(value: Any) -> str:
    return number(value) if isinstance(value, float) else "" if value is None else str(value)


def _heading(text: str) -> dict[str, Any]:
    return {"text": text, "anchor": "start", "fontSize": 12, "fontWeight": 600, "offset": 8}


def _history(snapshot: Snapshot) -> dict[str, Any]:
    """The value of every trial, and the best up to it."""
    better = min if snapshot["direction"] == "minimize" else max
    best: float | None = None
    records = []
    for trial in _valued(snapshot):
        if trial["state"] == "done":
            best = trial["value"] if best is None else better(best, trial["value"])
        records.append({"trial": trial["number"], "value": trial["value"], "state": trial["state"], "best": best})
    x = {"field": "trial", "type": "quantitative", "axis": {"title": "trial", "grid": False, "tickMinStep": 1}}
    y = {"type": "quantitative", "scale": {"zero": False}, "axis": {"title": None, "tickCount": 5}}
    colour = {"condition": {"test": "datum.state == 'done'", "value": _ACCENT}, "value": _MUTED}
    tooltip = [{"field": name} for name in ("trial", "value", "state")]
    points = {
        "mark": {"type": "point", "filled": True, "size": 36},
        "encoding": {"x": x, "y": {"field": "value", **y}, "color": colour, "tooltip": tooltip},
    }
    line = {
        "transform": [{"filter": "isValid(datum.best)"}],
        "mark": {"type": "line", "interpolate": "step-after", "color": _BEST, "strokeWidth": 1.75},
        "encoding": {"x": x, "y": {"field": "best", **y}},
    }
    layers = [line, points]
    heading = _heading(f"{snapshot['metric']} by trial, and the best so far")
    return {"title": heading, "width": 320, "height": 190, "data": {"values": records}, "layer": layers}


def _parallel(snapshot: Snapshot) -> dict[str, Any]:
    """One line a trial through its values, each axis from the low to the high end of the range."""
    trials = sorted(_valued(snapshot), key=lambda trial: _order(snapshot, trial))[:LINES]
    values = [trial["value"] for trial in trials]
    low, high = min(values), max(values)
    axes = [field["path"] for field in snapshot["fields"]]
    records, ends = [], []
    for field in snapshot["fields"]:
        for i, label in enumerate(_ends(field)):
            ends.append({"axis": field["path"], "place": i, "label": label})
        for trial in trials:
            if field["path"] in trial["params"]:
                value = trial["params"][field["path"]]
                records.append(_at(trial, field["path"], place(field, value), value, snapshot))
    for trial in trials:
        part = (trial["value"] - low) / (high - low) if high > low else 0.5
        records.append(_at(trial, snapshot["metric"], part, trial["value"], snapshot))
    ends += [{"axis": snapshot["metric"], "place": i, "label": number(end)} for i, end in enumerate((low, high))]
    x = {
        "field": "axis",
        "type": "nominal",
        "sort": [*axes, snapshot["metric"]],
        "axis": {"title": None, "labelAngle": 0},
    }
    y = {"field": "place", "type": "quantitative", "axis": None, "scale": {"domain": [-0.08, 1.08]}}
    opacity = {"field": "rank", "type": "quantitative", "scale": {"range": [0.75, 0.12]}, "legend": None}
    lines = {
        "mark": {"type": "line", "strokeWidth": 1.25},
        "encoding": {
            "x": x,
            "y": y,
            "detail": {"field": "trial"},
            "order": {"field": "order"},
            "opacity": opacity,
            "color": {"condition": {"test": "datum.best", "value": _BEST}, "value": _ACCENT},
            "tooltip": [{"field": name} for name in ("trial", "axis", "value")],
        },
    }
    order = {name: i for i, name in enumerate([*axes, snapshot["metric"]])}
    ranks = {trial["number"]: i for i, trial in enumerate(trials)}
    for record in records:
        record |= {"order": order[record["axis"]], "rank": ranks[record["trial"]]}
    labels = {
        "data": {"values": ends},
        "mark": {"type": "text", "fontSize": 10, "dy": {"expr": "datum.place == 0 ? 9 : -9"}, "color": _MUTED},
        "encoding": {"x": x, "y": y, "text": {"field": "label"}},
    }
    width = max(320, 84 * (len(axes) + 1))
    return {
        "title": _heading("Hyperparameters of each trial"),
        "width": width,
        "height": 190,
        "layer": [{"data": {"values": records}, **lines}, labels],
    }


def _at(trial: Mapping[str, Any], axis: str, part: float, value: Any, snapshot: Snapshot) -> dict[str, Any]:
    best = trial["number"] == snapshot["best"]
    return {"trial": trial["number"], "axis": axis, "place": round(part, 4), "value": value, "best": best}


def _ends(field: Mapping[str, Any]) -> Sequence[str]:
    options = _options(field)
    return [_shown(end) for end in ((options[0], options[-1]) if options else (field["low"], field["high"]))]


def _options(field: Mapping[str, Any]) -> list[Any]:
    return [False, True] if field["kind"] == "bool" else list(field["choices"])


def place(field: Mapping[str, Any], value: Any) -> float:
    """Where a value lies between the ends of its range, from 0 to 1.

    >>> place({"kind": "float", "low": 0.01, "high": 1, "log": True, "choices": []}, 0.1)
    0.5
    """
    options = _options(field)
    if options:
        return options.index(value) / max(1, len(options) - 1)
    low, high = field["low"], field["high"]
    if field["log"]:
        return math.log(value / low) / math.log(high / low)
    return float((value - low) / (high - low))


def _importance(snapshot: Snapshot) -> dict[str, Any]:
    records = [{"name": path, "share": share} for path, share in snapshot["importance"].items()]
    x = {"field": "share", "type": "quantitative", "axis": {"title": None, "format": "%", "tickCount": 5}}
    bars = {
        "mark": {"type": "bar", "color": _ACCENT},
        "encoding": {"x": x, "y": {"field": "name", "type": "nominal", "sort": None, "axis": {"title": None}}},
    }
    return {
        "title": _heading("Importance (PED-ANOVA)"),
        "width": 320,
        "height": 24 * len(records),
        "data": {"values": records},
        **bars,
    }
