"""The keys suite: what one shard of a sparse table costs as it grows from 100,000 keys to 100 million.

Each turn grows each table anew, in a process of its own, by pushes of 100,000 random int64 keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks import growth_plot, processes
from benchmarks.comparison import Target
from benchmarks.keys_jobs.work import FILLING, KINDS, MEMORY, PULLS, PUSHES, Kind
from benchmarks.sides import PAIBOOK as NOTEBOOK
from benchmarks.suite import OURS, Measure, Outcome, Outcomes, Record

SIZES = (10**5, 10**6, 10**7, 10**8)
SECONDS = 600.0  # after which a side has failed
PICTURE = Path(__file__).parents[1] / "docs" / "benchmarks-keys.svg"
UNITS = {MEMORY: "B", FILLING: "Mkeys/s", PUSHES: "Mkeys/s", PULLS: "Mkeys/s"}
DRAWN = (MEMORY, PUSHES, PULLS)
NEEDED = 4  # times the least, free, for a table to be grown: while an index grows, its old one is there too
ROWS, LEAST = "dict of NumPy rows", "the least there can be"


@dataclass(frozen=True)
class Side:
    """One side.

    Attributes:
        name, package, python: As for every side.
        job: The module that is run; none where nothing has to be.
        most: Keys it is grown to, at most.
    """

    name: str
    job: str | None
    most: int = SIZES[-1]
    package: str = "numpy"
    python: Path = field(default=NOTEBOOK.python)


SIDES = (
    Side(OURS, "paibook_side", package="paibook"),
    Side(ROWS, "dict_side", 10**6),
    Side(LEAST, None),
)


def named(what: str, kind: Kind, keys: int) -> str:
    """The measure's name.

    >>> named(PULLS, KINDS[0], 10**6)
    'pulls, width 1, FTRL, 1M keys'
    """
    return f"{what}, {kind.name}, {_shown(keys)} keys"


def _shown(keys: int) -> str:
    return f"{keys // 1000}k" if keys < 10**6 else f"{keys // 10**6}M"


def _measure(what: str, kind: Kind, keys: int) -> Measure:
    if what == MEMORY:
        return Measure(named(what, kind, keys), UNITS[what], Target(0.5, "ratio"), targets={LEAST: Target(3, "ratio")})
    return Measure(named(what, kind, keys), UNITS[what], Target(10, "ratio"), "higher")


MEASURES = tuple(_measure(what, kind, n) for kind in KINDS for what in UNITS for n in SIZES if n <= kind.most)


def turn(side: Side) -> Outcomes:
    """Every measure of every table and number of keys, once.

    Raises:
        RuntimeError: It failed; says how.
    """
    outcomes: Outcomes = {}
    for kind in KINDS:
        for keys in SIZES:
            if keys > min(kind.most, side.most):
                continue
            if side.job is None:
                outcomes[named(MEMORY, kind, keys)] = Outcome(kind.least)
            elif _fits(kind, keys):
                outcomes |= _grown(side, side.job, kind, keys)
    return outcomes


def _fits(kind: Kind, keys: int) -> bool:
    needed, free = NEEDED * kind.least * keys, psutil.virtual_memory().available
    if needed > free:
        name = f"{kind.name}, {_shown(keys)} keys"
        print(f"skipped: {name}: that takes {needed / 1e9:.1f} GB; {free / 1e9:.1f} GB are free", flush=True)
    return needed <= free


def _grown(side: Side, job: str, kind: Kind, keys: int) -> Outcomes:
    command = [str(side.python), "-m", f"benchmarks.keys_jobs.{job}", kind.name, str(keys)]
    found: Mapping[str, float | None] = processes.run(command, {}, SECONDS)
    notes = {MEMORY: "" if found["says"] is None else f"usage() says {found['says']:.0f} B"}
    return {named(what, kind, keys): Outcome(found[what], notes.get(what, "")) for what in UNITS}


def draw(record: Record) -> None:
    """Draw what was found, into the documents."""
    points = [
        growth_plot.Point(f"{what}, {kind.name} ({UNITS[what]})", side, keys, value)
        for what in DRAWN
        for kind in KINDS
        for side in record.turns
        for keys in SIZES
        for value in record.values(side, named(what, kind, keys))
        if value is not None
    ]
    PICTURE.write_text(growth_plot.svg(points, "keys", base=10))
