"""The options of a ``%%pai_ps`` cell, read out of its plan and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from paibook.errors import PlanError
from paibook.plan import Plan
from paibook.runtimes import pulls
from paibook.runtimes.ps import checkpoints
from paibook.runtimes.ps.consistency import Consistency
from paibook.runtimes.ps.messages import Saving
from paibook.runtimes.ps.until import Until

MAX_RESTARTS = 3  # deaths of one rank that are made good


@dataclass(frozen=True)
class Options:
    """What a cell asks for.

    Attributes:
        consistency: What a pull may miss.
        until: The stop condition, if any.
        should_stop: Whether the cell has a function of that name.
        wanted: What to pull from the workers at the end.
        replicas: Copies of a partition beside its primary.
        max_restarts: Deaths of one process that are made good.
        saving: Where checkpoints go; None where there are to be none.
        nan: ``"stop"`` or ``"skip"``.
    """

    consistency: Consistency
    until: Until | None
    should_stop: bool
    wanted: pulls.Wanted
    replicas: int
    max_restarts: int
    saving: Saving | None
    nan: str

    @classmethod
    def of(cls, plan: Plan, workers: int) -> Options:
        """Those of a plan.

        Args:
            plan: Of a ``%%pai_ps`` cell.
            workers: How many there are; 0 where that is not known yet.

        Raises:
            PlanError: Naming the option, and what it takes.
        """
        asked = plan.options
        return cls(
            consistency=Consistency.parse(asked.get("consistency", "bsp"), asked.get("staleness", 0)),
            until=Until.parse(str(asked["until"])) if asked.get("until") else None,
            should_stop="should_stop" in plan.program.names(),
            wanted=_wanted(plan, workers),
            replicas=_replicas(plan),
            max_restarts=_max_restarts(plan),
            nan=_nan(plan),
            saving=_saving(plan),  # last: it makes the folder, which what is refused must not leave behind
        )

    @property
    def decides(self) -> bool:
        """Whether the coordinator decides when training ends."""
        return self.should_stop or self.until is not None

    @property
    def watched(self) -> tuple[str, ...] | None:
        """Metrics that the decision looks at; None for all."""
        if self.should_stop:
            return None
        return () if self.until is None else self.until.names


def _wanted(plan: Plan, size: int) -> pulls.Wanted:
    """What to pull; ``size`` is the number of workers, 0 where it is not known yet."""
    wanted = pulls.parse(plan.pull)
    for name, rank in wanted:
        if size and rank is not None and rank >= size:
            raise PlanError(f"--pull {name}@{rank}: there are ranks 0 to {size - 1}")
    return wanted


def _nan(plan: Plan) -> str:
    asked = plan.options.get("nan", "stop")
    if asked not in ("stop", "skip"):
        raise PlanError(f"--nan takes stop or skip; got {asked!r}")
    return str(asked)


def _max_restarts(plan: Plan) -> int:
    asked = plan.options.get("max_restarts", MAX_RESTARTS)
    if isinstance(asked, bool) or not isinstance(asked, int) or asked < 0:
        raise PlanError(f"--max-restarts takes a whole number, 0 or more; got {asked!r}")
    return asked


def _replicas(plan: Plan) -> int:
    """How many copies beside the primary: as asked, else one where there is a second server.

    Raises:
        PlanError: There are not enough servers for as many.
    """
    servers, asked = plan.resources.servers, plan.options.get("replicas")
    if asked is None:
        return min(1, servers - 1)
    if isinstance(asked, bool) or not isinstance(asked, int) or asked < 0:
        raise PlanError(f"--replicas takes a whole number, 0 or more; got {asked!r}")
    if asked >= servers:
        raise PlanError(f"--replicas {asked} needs {asked + 1} servers, since each copy is on another; got {servers}")
    return asked


def _saving(plan: Plan) -> Saving | None:
    """Where checkpoints go, and the one that is there already.

    Raises:
        PlanError: The options do not go together, or the folder will not do.
    """
    folder, every = plan.options.get("checkpoint"), plan.options.get("checkpoint_every") or 0
    if isinstance(every, bool) or not isinstance(every, int) or every < 0:
        raise PlanError(f"--checkpoint-every takes a whole number of clocks, 1 or more; got {every!r}")
    if folder is None:
        if every:
            raise PlanError("--checkpoint-every needs a folder, as in --checkpoint FOLDER")
        return None
    path = str(Path(str(folder)).expanduser().absolute())
    checkpoints.check(path)
    manifest = checkpoints.find(path)
    if manifest is None and not every:
        raise PlanError(f"--checkpoint {folder}: there is none yet, and none is written without --checkpoint-every N")
    if manifest is None:
        return Saving(path, every)
    best = {of: (value, clock) for of, (value, clock) in manifest.get("best", {}).items()}
    return Saving(path, every, int(manifest["clock"]), tuple(checkpoints.tables_of(manifest)), best)
