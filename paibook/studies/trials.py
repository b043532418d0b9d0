"""Trials and the options of a study, as values."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from paibook.errors import PlanError
from paibook.metrics import Metric

Direction = Literal["minimize", "maximize"]
Sampler = Literal["tpe", "random"]
Pruner = Literal["median", "hyperband", "none"]
Which = Literal["last", "best"]
State = Literal["running", "done", "pruned", "failed", "stopped"]
CURVE = 30  # values of a trial's metric that are kept for its picture
FOLDER = "paibook-studies"  # in the project's folder


@dataclass(frozen=True)
class StudyOptions:
    """How a study goes.

    Attributes:
        metric: Name of a metric that the cell logs with ``pai.log``.
        direction: Whether less or more of it is better.
        which: Of its values in a trial (each the mean over ranks), the ``last`` or the ``best`` counts.
        trials: How many the study is to have in the end, those of earlier sessions included.
        jobs: Trials at once; None: as many as the workers have room for.
        timeout: Seconds after which no further trial begins, or None.
        sampler: ``tpe`` (Bergstra et al., 2011) or ``random``.
        pruner: Ends trials that do badly: below the ``median`` of the others at the same step, ``hyperband``
            (Li et al., 2018), or ``none``.
        warmup: Steps of a trial that the pruner does not judge; nor does it judge any before five trials have ended.
        seed: Makes the choices the same again, as long as trials run one at a time.
        study: Name of the study; made up where it is empty.
        resume: Go on with a study of this name.
        folder: Where studies are kept.
    """

    metric: str = "loss"
    direction: Direction = "minimize"
    which: Which = "last"
    trials: int = 20
    jobs: int | None = None
    timeout: float | None = None
    sampler: Sampler = "tpe"
    pruner: Pruner = "median"
    warmup: int = 0
    seed: int | None = None
    study: str = ""
    resume: bool = False
    folder: Path = field(default_factory=lambda: Path(FOLDER))

    def __post_init__(self) -> None:
        for name, values in (
            ("direction", get_args(Direction)),
            ("which", get_args(Which)),
            ("sampler", get_args(Sampler)),
            ("pruner", get_args(Pruner)),
        ):
            if getattr(self, name) not in values:
                raise PlanError(f"{name} of a search must be one of {', '.join(values)}; got {getattr(self, name)!r}")
        for name, least in (("trials", 1), ("jobs", 1), ("warmup", 0)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < least):
                raise PlanError(f"{name} of a search must be {least} or more; got {value!r}")
        if self.timeout is not None and not 0 < self.timeout < math.inf:
            raise PlanError(f"timeout of a search must be seconds above 0; got {self.timeout!r}")
        if not self.metric:
            raise PlanError("a search needs the name of a metric that the cell logs, such as loss")
        if self.study and not re.fullmatch(r"[\w.-]{1,80}", self.study):
            raise PlanError(f"the name of a study is letters, digits, points and dashes; got {self.study!r}")
        if self.resume and not self.study:
            raise PlanError("which study is to go on? Name it with --study NAME")


@dataclass(frozen=True)
class Trial:
    """One trial as it stands.

    Attributes:
        number: From 0.
        state: As named.
        params: The searched values, by dotted path.
        value: Of the metric, as far as it has come; None before the first.
        curve: The metric's latest values, one a step, thinned.
        run: Its run's identifier; empty for trials of earlier sessions that did not come so far.
        seconds: How long it took or has taken.
        error: Why it failed, or empty.
    """

    number: int
    state: State
    params: Mapping[str, Any]
    value: float | None = None
    curve: tuple[float, ...] = ()
    run: str = ""
    seconds: float = 0.0
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "number": self.number,
            "state": self.state,
            "params": dict(self.params),
            "value": self.value if self.value is None or math.isfinite(self.value) else None,
            "curve": [float(f"{value:.4g}") if math.isfinite(value) else None for value in self.curve],
            "run": self.run,
            "seconds": round(self.seconds, 1),
            "error": self.error,
        }


class StepMeans:
    """The metric's mean over ranks, step by step, as the records of a run come in."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.others: set[str] = set()
        self._values: dict[int, list[float]] = {}
        self._counts: dict[int, int] = {}  # records of a rank that names no steps
        self._told = -1

    def add(self, records: Iterable[Metric]) -> None:
        """Take in records; those of other metrics are noted by name only."""
        for record in records:
            if record.name != self.name:
                self.others.add(record.name)
                continue
            step = record.step
            if step is None:
                step = self._counts[record.rank] = self._counts.get(record.rank, -1) + 1
            self._values.setdefault(step, []).append(record.value)

    def complete(self, ended: bool) -> list[tuple[int, float]]:
        """Steps that no rank will add to, as far as can be seen, each once: those before the latest; all at the end."""
        steps = sorted(step for step in self._values if step > self._told)
        whole = steps if ended else steps[:-1]
        if whole:
            self._told = whole[-1]
        return [(step, self.mean(step)) for step in whole]

    def mean(self, step: int) -> float:
        """Over the values of one step."""
        values = self._values[step]
        return sum(values) / len(values)

    def curve(self, most: int = CURVE) -> tuple[float, ...]:
        """The means in order of steps, at most so many of them, the last included."""
        steps = sorted(self._values)
        every = max(1, math.ceil(len(steps) / most))
        return tuple(self.mean(step) for step in reversed(steps[::-1][::every]))

    def value(self, which: Which, direction: Direction) -> float | None:
        """What the trial is judged by; None without any record."""
        if not self._values:
            return None
        if which == "last":
            return self.mean(max(self._values))
        finite = [mean for mean in map(self.mean, self._values) if math.isfinite(mean)]
        return (min if direction == "minimize" else max)(finite, default=math.nan)
