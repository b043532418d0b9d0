"""A comparison: paibook against one peer on one measure, pair by pair.

The two sides ran in turn (A B A B ...), so the k-th value of one belongs with the k-th of the other; the ratio of each
pair cancels what the machine was doing meanwhile.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Target:
    """What paibook is to reach: a bound on its own median, or on its ratio to the peer.

    Attributes:
        limit: The bound, in the measure's unit, or a plain factor for a ratio.
        of: What is bounded.
    """

    limit: float
    of: Literal["value", "ratio"] = "value"

    def text(self, better: Better, unit: str) -> str:
        """As shown: ``<= 3 s``, ``>= 2x``."""
        sign = "<=" if better == "lower" else ">="
        return f"{sign} {self.limit:g}x" if self.of == "ratio" else f"{sign} {self.limit:g} {unit}"

    def met(self, ours: float, ratio: float | None, better: Better) -> bool:
        """Whether the bound is kept; a bound on a ratio that could not be taken is not."""
        value = ours if self.of == "value" else ratio
        if value is None:
            return False
        return value <= self.limit if better == "lower" else value >= self.limit


@dataclass(frozen=True)
class Comparison:
    """One row of ``results/<suite>.json``.

    Attributes:
        name: The measure.
        peer: Against whom.
        ratio: Median over the pairs of ours / theirs; None where no pair could be taken.
        spread: Smallest and largest ratio of a pair, or None.
        target: As text.
        better: Which way is better, for the values and for the ratio alike.
        ok: Whether the target is met.
        unit: Of ``ours`` and ``theirs``.
        ours, theirs: Medians; None where that side never gave a right answer.
        versions: Package to version.
        machine: Cores, processor, memory, Python.
        date: ISO 8601.
    """

    name: str
    peer: str
    ratio: float | None
    spread: tuple[float, float] | None
    target: str
    better: Better
    ok: bool
    unit: str
    ours: float | None
    theirs: float | None
    versions: dict[str, str]
    machine: str
    date: str

    def line(self) -> str:
        """The printed line: ``name  peer  ratio (min-max)  target  ok|short``."""
        ratio = "-"
        if self.ratio is not None and self.spread is not None:
            ratio = f"{self.ratio:.3g} ({self.spread[0]:.3g}-{self.spread[1]:.3g})"
        return f"{self.name:<36}  {self.peer:<20}  {ratio:<22}  {self.target:<10}  {'ok' if self.ok else 'short'}"


def median(values: Sequence[float | None]) -> float | None:
    """Median of the values that are there, or None.

    >>> median([3.0, None, 1.0])
    2.0
    """
    present = [value for value in values if value is not None]
    return statistics.median(present) if present else None


def pair_ratios(ours: Sequence[float | None], theirs: Sequence[float | None]) -> list[float]:
    """Ratio ours / theirs of each pair in which both sides gave a right answer.

    >>> pair_ratios([1.0, None, 3.0], [2.0, 2.0, 2.0])
    [0.5, 1.5]
    """
    return [a / b for a, b in zip(ours, theirs, strict=False) if a is not None and b]


def compare(
    name: str,
    peer: str,
    ours: Sequence[float | None],
    theirs: Sequence[float | None],
    *,
    unit: str,
    target: Target,
    better: Better = "lower",
    versions: dict[str, str],
    machine: str,
    date: str,
) -> Comparison:
    """Compare two series taken in turn; None stands for a turn without a right answer."""
    ratios = pair_ratios(ours, theirs)
    ratio, our_median = median(ratios), median(ours)
    return Comparison(
        name=name,
        peer=peer,
        ratio=ratio,
        spread=(min(ratios), max(ratios)) if ratios else None,
        target=target.text(better, unit),
        better=better,
        ok=our_median is not None and None not in ours and target.met(our_median, ratio, better),
        unit=unit,
        ours=our_median,
        theirs=median(theirs),
        versions=versions,
        machine=machine,
        date=date,
    )


def write_json(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write the comparisons as a JSON list of objects."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(c) for c in comparisons], indent=2) + "\n")


def read_json(path: Path) -> list[Comparison]:
    """Read back what ``write_json`` wrote."""
    rows = json.loads(path.read_text())
    return [Comparison(**{**row, "spread": tuple(row["spread"]) if row["spread"] else None}) for row in rows]
