"""The state of the curves as the page gets it: panels described in JSON, points in one block of float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paibook.widgets.decimation import Buckets, Curve, Points
from paibook.widgets.figure import number, summary_rows
from paibook.widgets.sources import EPOCH, Axis, Source


@dataclass(frozen=True)
class View:
    """How curves are to be looked at.

    Attributes:
        axis: What runs to the right.
        by_rank: One line a rank instead of their mean.
        overlays: Groups of metric names that share a panel; the first of a group gives the panel its name.
    """

    axis: Axis = "step"
    by_rank: bool = False
    overlays: Sequence[Sequence[str]] = ()


class Blocks:
    """Arrays laid end to end; each is known by its offset and length in float64s."""

    def __init__(self) -> None:
        self._arrays: list[NDArray[np.float64]] = []
        self._length = 0

    def add(self, array: NDArray[np.float64]) -> list[int]:
        """Lay down an array; where it lies."""
        place = [self._length, len(array)]
        self._arrays.append(array)
        self._length += len(array)
        return place

    def tobytes(self) -> bytes:
        """All of them, little endian."""
        return np.concatenate([np.zeros(0), *self._arrays]).astype("<f8").tobytes()


def panels_of(sources: Sequence[Source], view: View) -> tuple[list[dict[str, Any]], bytes]:
    """Describe one panel per group of metrics, JSON-able, and lay down their points."""
    blocks = Blocks()
    names = list(dict.fromkeys(name for source in sources for name in source.shown.curves))
    return [_panel(group, sources, view, blocks) for group in grouped(names, view.overlays)], blocks.tobytes()


def grouped(names: Sequence[str], overlays: Sequence[Sequence[str]]) -> list[list[str]]:
    """Names as panels: each alone, or with those it is overlaid with, in the place of the first.

    >>> grouped(["loss", "lr", "val_loss"], [("loss", "val_loss"), ("x", "y")])
    [['loss', 'val_loss'], ['lr']]
    """
    groups: list[list[str]] = []
    taken: set[str] = set()
    for name in names:
        if name not in taken:
            wanted: Sequence[str] = next((group for group in overlays if name in group), [name])
            groups.append([other for other in wanted if other in names and other not in taken])
            taken.update(groups[-1])
    return groups


def rank_label(rank: int) -> str:
    """The rank as shown to people."""
    return "notebook" if rank < 0 else f"rank {rank}"


def _panel(group: list[str], sources: Sequence[Source], view: View, blocks: Blocks) -> dict[str, Any]:
    series: list[dict[str, Any]] = []
    marks: list[NDArray[np.float64]] = []
    rows, notes, ranks = [], [], 1
    for source in sources:
        for name in group:
            curve = source.shown.curves.get(name)
            if curve is None:
                continue
            prefix = [source.label] * (len(sources) > 1) + [name] * (len(group) > 1)
            whole = source.history.curves.get(name, curve)
            lines = _lines(curve, source, view, prefix, blocks)
            if name != EPOCH and len(lines) == 1 and whole.best == whole.best:
                lines[0]["best"] = [source.place(view.axis, whole, whole.best_step), whole.best]
                lines[0]["best_text"] = f"best {number(whole.best)} at step {whole.best_step:,}"
            series += lines
            together = curve.together.points()
            marks.append(source.x(view.axis, _only(together, np.isin(together.x, together.marks))))
            rows.append([" · ".join(prefix) or name, *summary_rows(whole)])
            notes.append(_note(whole, prefix))
            ranks = max(ranks, curve.world_size)
    return {
        "name": group[0],
        "metrics": group,
        "axis": view.axis,
        "ranks": ranks,
        "series": series,
        "marks": blocks.add(np.concatenate([np.zeros(0), *marks])),
        "note": "; ".join(filter(None, notes)),
        "rows": rows,
    }


def _lines(curve: Curve, source: Source, view: View, prefix: list[str], blocks: Blocks) -> list[dict[str, Any]]:
    many = curve.world_size > 1
    if many and view.by_rank:
        return [
            _series(" · ".join([*prefix, rank_label(rank)]), buckets, source, view, blocks)
            for rank, buckets in sorted(curve.ranks.items())
        ]
    what = f"mean of {curve.world_size} ranks" if many else ""
    if not many and curve.together.width > 1:
        what = f"mean of {curve.together.width} steps"
    label = " · ".join(filter(None, [*prefix, what])) or "value"
    return [_series(label, curve.together, source, view, blocks, band=True)]


def _series(
    label: str, buckets: Buckets, source: Source, view: View, blocks: Blocks, band: bool = False
) -> dict[str, Any]:
    points = buckets.points()
    x = source.x(view.axis, points)
    # Steps that came out of order need not be in order of time or epoch; a line runs to the right.
    order = np.argsort(x, kind="stable")
    series: dict[str, Any] = {"label": label, "x": blocks.add(x[order]), "mean": blocks.add(points.mean[order])}
    if band and points.band:
        series |= {"low": blocks.add(points.low[order]), "high": blocks.add(points.high[order])}
    return series


def _only(points: Points, rows: NDArray[np.bool_]) -> Points:
    x, mean, low, high, time = (part[rows] for part in (points.x, points.mean, points.low, points.high, points.time))
    return Points(x, mean, low, high, x, time)


def _note(curve: Curve, prefix: list[str]) -> str:
    if curve.first_not_finite is None:
        return ""
    step, rank, value = curve.first_not_finite
    where = f", {rank_label(rank)}" if curve.world_size > 1 else ""
    count = f"{curve.not_finite:,} values not finite; first" if curve.not_finite > 1 else "not finite:"
    return f"{' · '.join(prefix)} {count} {number(value)} at step {step:,}{where}".strip()
