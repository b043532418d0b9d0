"""A suite: the same measures on paibook and on each peer, turn after turn, and what comes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypeVar

from benchmarks import document, machine
from benchmarks.comparison import Better, Comparison, Target, compare, write_json

RESULTS = Path(__file__).parent / "results"
FAILED = "failed"
OURS = "paibook"  # the name of our own side in every suite


class Side(Protocol):
    """One side of a suite, as far as taking turns is concerned.

    Attributes:
        name: As shown.
        package: Distribution whose version is shown and whose absence skips the side.
        python: The interpreter it is installed in.
    """

    @property
    def name(self) -> str: ...
    @property
    def package(self) -> str: ...
    @property
    def python(self) -> Path: ...


AnySide = TypeVar("AnySide", bound=Side)


@dataclass(frozen=True)
class Measure:
    """What is measured, in which unit, and what paibook is to reach: by peer, or else the same beside all of them."""

    name: str
    unit: str
    target: Target
    better: Better = "lower"
    targets: Mapping[str, Target] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """One value, or None when the answer was not right; the note says what else was seen."""

    value: float | None
    note: str = ""


Outcomes = dict[str, Outcome]


@dataclass
class Record:
    """Every turn of every side, in order.

    Attributes:
        versions: Side to the version measured.
        turns: Side to its turns.
    """

    versions: dict[str, str]
    turns: dict[str, list[Outcomes]] = field(default_factory=dict)

    def values(self, side: str, measure: str) -> list[float | None]:
        """One value per turn."""
        return [turn[measure].value if measure in turn else None for turn in self.turns.get(side, [])]

    def note(self, side: str, measure: str) -> str:
        """What the turns had to say, each thing once."""
        notes = (turn[measure].note for turn in self.turns.get(side, []) if measure in turn)
        return "; ".join(dict.fromkeys(note for note in notes if note))


def run(
    sides: Sequence[AnySide], measures: Sequence[Measure], turn: Callable[[AnySide], Outcomes], rounds: int
) -> Record:
    """Let the sides take their turns, ``rounds`` times over; a side that is not installed is skipped by name."""
    versions = {side.name: machine.versions(side.python, [side.package]).get(side.package, "") for side in sides}
    for side in sides:
        if not versions[side.name]:
            print(f"skipped: {side.name} is not installed (benchmarks/requirements-peers.txt)", flush=True)
    record = Record({name: version for name, version in versions.items() if version})
    for number in range(1, rounds + 1):
        for side in sides:
            if side.name in record.versions:
                outcomes = _taken(side, measures, turn)
                record.turns.setdefault(side.name, []).append(outcomes)
                print(f"round {number}  {side.name:<20}  {_summary(outcomes, measures)}", flush=True)
    for turns in record.turns.values():
        _drop_foreign(turns)
    return record


def _drop_foreign(turns: list[Outcomes]) -> None:
    """A turn that failed stands for every measure: drop those that the side's good turns do not have."""
    own = {name for turn in turns for name, outcome in turn.items() if outcome.value is not None}
    for place, turn in enumerate(turns):
        if own:
            turns[place] = {name: outcome for name, outcome in turn.items() if name in own or outcome.note != FAILED}


def comparisons(record: Record, measures: Sequence[Measure], sides: Sequence[Side]) -> list[Comparison]:
    """paibook against each peer, measure by measure."""
    where, when = machine.describe(), datetime.now(UTC).isoformat(timespec="seconds")
    return [
        compare(
            measure.name,
            side.name,
            record.values(OURS, measure.name),
            record.values(side.name, measure.name),
            unit=measure.unit,
            target=measure.targets.get(side.name, measure.target),
            better=measure.better,
            versions={name: record.versions[name] for name in (OURS, side.name)},
            machine=where,
            date=when,
        )
        for measure in measures
        for side in sides
        if side.name != OURS and {side.name, OURS} <= set(record.versions)
        # A side takes part in some measures only.
        if any(measure.name in turn for turn in record.turns.get(side.name, ()))
    ]


def publish(
    suite: str, record: Record, rows: Sequence[Comparison], measures: Sequence[Measure], note: str = ""
) -> None:
    """Write ``results/<suite>.json`` and the suite's tables in the document."""
    write_json(rows, RESULTS / f"{suite}.json")
    body = [
        f"{rows[0].date[:10]}; {rows[0].machine}. {len(record.turns[OURS])} turns each. {note}".strip(),
        document.side_table({m.name: m.unit for m in measures}, _columns(record, measures)),
        document.comparison_table(rows),
    ]
    document.update(suite, "\n\n".join(body))


def _columns(
    record: Record, measures: Sequence[Measure]
) -> Mapping[str, Mapping[str, tuple[Sequence[float | None], str]]]:
    return {
        f"{name} {record.versions[name]}": {
            m.name: (record.values(name, m.name), record.note(name, m.name)) for m in measures
        }
        for name in record.turns
    }


def _taken(side: AnySide, measures: Sequence[Measure], turn: Callable[[AnySide], Outcomes]) -> Outcomes:
    try:
        return turn(side)
    except (RuntimeError, OSError) as error:
        # A side that fails its turn is reported as such and the others go on; the exit code is about the run.
        print(f"{side.name} failed its turn: {error}", flush=True)
        return {measure.name: Outcome(None, FAILED) for measure in measures}


def _summary(outcomes: Outcomes, measures: Sequence[Measure]) -> str:
    parts = []
    for measure in measures:
        outcome = outcomes.get(measure.name, Outcome(None))
        shown = outcome.note or "-" if outcome.value is None else f"{outcome.value:.3g} {measure.unit}"
        parts.append(f"{measure.name}: {shown}")
    return "; ".join(parts)
