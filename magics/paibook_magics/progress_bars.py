"""tqdm's bars of several ranks as one: how far the slowest, the middle and the fastest are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from paibook_magics.labels import joined

# As tqdm's own ``bar_format`` draws it: ``fit:  42%|####2     | 5/12 [00:01<00:02,  3.1it/s]``.
_BAR = re.compile(
    r"(?P<title>.*?)\s*(?P<percent>\d+)%\|(?P<bar>[^|]*)\|\s*(?P<count>[\d.]+[kMGT]?)/(?P<total>[\d.]+[kMGT]?)\s*"
    r"\[(?P<elapsed>[^<\]]+)<(?P<left>(?:\d+ days?, )?[\d:?]+)(?P<rest>[^\]]*)\]\s*"
)
_UNITS = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_WIDTH = 10


@dataclass(frozen=True)
class _Bar:
    title: str
    percent: int
    count: str
    total: str
    elapsed: str
    left: str
    rest: str  # the rate, and what the cell has set_postfix


def merged_bars(rows: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Labelled lines, those that are bars of the same title and total as one, in the place of the first.

    Args:
        rows: Labels such as ``"[rank 0] "``, each with a line.

    Returns:
        The same rows, or fewer: ``"[ranks 0-3] "`` with ``fit:  42%|####      | 3 / 5 / 6 of 12 [00:01<00:02]``, where
        the numbers are the least, the median and the greatest; times, rate and what follows are the slowest's.
    """
    bars = [_parsed(text) for _, text in rows]
    made: list[tuple[str, str]] = []
    done: set[tuple[str, str]] = set()
    for row, bar in zip(rows, bars, strict=True):
        if bar is None:
            made.append(row)
            continue
        kind = bar.title, bar.total
        if kind in done:
            continue
        done.add(kind)
        same = [(label, b) for (label, _), b in zip(rows, bars, strict=True) if b and (b.title, b.total) == kind]
        made.append(row if len(same) == 1 else _merged(same))
    return made


def _merged(same: Sequence[tuple[str, _Bar]]) -> tuple[str, str]:
    ordered = sorted((bar for _, bar in same), key=lambda bar: _number(bar.count))
    slowest, middle, fastest = ordered[0], ordered[(len(ordered) - 1) // 2], ordered[-1]
    filled = round(_WIDTH * middle.percent / 100)
    title = f"{slowest.title} " if slowest.title else ""
    counts = f"{slowest.count} / {middle.count} / {fastest.count} of {slowest.total}"
    if slowest.count == fastest.count:
        counts = f"{slowest.count} of {slowest.total}"
    drawn = f"{'█' * filled}{' ' * (_WIDTH - filled)}"
    text = f"{title}{middle.percent:3d}%|{drawn}| {counts} [{slowest.elapsed}<{slowest.left}{slowest.rest}]"
    return joined([label for label, _ in same]), text


def _parsed(text: str) -> _Bar | None:
    match = _BAR.fullmatch(text.strip())
    if match is None:
        return None
    title = match["title"].strip()
    return _Bar(
        title, int(match["percent"]), match["count"], match["total"], match["elapsed"], match["left"], match["rest"]
    )


def _number(text: str) -> float:
    return float(text[:-1]) * _UNITS[text[-1]] if text[-1] in _UNITS else float(text)
