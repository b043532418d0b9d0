"""``docs/benchmarks.md``: one table per suite, each between its own markers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.comparison import Comparison, median

PATH = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; pipes in the cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """One row per comparison: medians, the ratio with its spread, and whether the target is met."""
    rows = []
    for c in comparisons:
        ratio = "-" if c.ratio is None or c.spread is None else f"{c.ratio:.2g} ({c.spread[0]:.2g}-{c.spread[1]:.2g})"
        medians = [_amount(c.ours, c.unit), _amount(c.theirs, c.unit)]
        rows.append([c.name, c.peer, *medians, ratio, c.target, "ok" if c.ok else "short"])
    return markdown_table(["measure", "peer", "paibook", "peer's", "ours / theirs (min-max)", "target", ""], rows)


def side_table(
    measures: Mapping[str, str], sides: Mapping[str, Mapping[str, tuple[Sequence[float | None], str]]]
) -> str:
    """Measures down, sides across; each cell ``median (min-max), note``.

    Args:
        measures: Name to unit, in order.
        sides: Side to measure to its values and a note.
    """
    rows = [
        [name, *(_cell(*side.get(name, ((), "")), unit) for side in sides.values())] for name, unit in measures.items()
    ]
    return markdown_table(["", *sides], rows)


def insert(text: str, suite: str, body: str) -> str:
    """Put ``body`` between the suite's markers, adding a section at the end when there is none yet.

    >>> insert("x <!-- cells:begin -->old<!-- cells:end --> y", "cells", "new")
    'x <!-- cells:begin -->\\nnew\\n<!-- cells:end --> y'
    """
    begin, end = f"<!-- {suite}:begin -->", f"<!-- {suite}:end -->"
    if begin not in text or end not in text:
        text = f"{text.rstrip()}\n\n## {suite.capitalize()}\n\n{begin}{end}\n"
    before, rest = text.split(begin, 1)
    after = rest.split(end, 1)[1]
    return f"{before}{begin}\n{body.strip()}\n{end}{after}"


def update(suite: str, body: str, path: Path = PATH) -> None:
    """Write the suite's part of the document."""
    text = path.read_text() if path.exists() else "# Benchmarks\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(insert(text, suite, body))


def _cell(values: Sequence[float | None], note: str, unit: str) -> str:
    present = [value for value in values if value is not None]
    if not present:
        return note or "-"
    shown = _amount(median(values), unit)
    if len(present) > 1:
        shown += f" ({_number(min(present))}-{_number(max(present))})"
    return f"{shown}, {note}" if note else shown


def _amount(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{_number(value)} {unit}"


def _number(value: float) -> str:
    return f"{value:.2g}" if value < 99.5 else f"{value:.0f}"
