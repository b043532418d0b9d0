"""The growth suite: what ranks cost as there are more of them, 2 to 32, on however few cores there are.

Each turn starts each side anew for each number of ranks. Seconds until new ranks are ready where the cluster runs, a
cell or call that does nothing, a barrier and an allreduce of 1 kB, whose sum is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import growth_plot, processes, sides
from benchmarks.comparison import Target
from benchmarks.growth_jobs.operations import ALLREDUCE, BARRIER, NO_OP, READY
from benchmarks.sides import PAIBOOK as NOTEBOOK
from benchmarks.sides import PEERS
from benchmarks.suite import Measure, Outcome, Outcomes, Record

SIZES = (2, 4, 8, 16, 32)
SECONDS = 300.0  # after which a side has failed
PICTURE = Path(__file__).parents[1] / "docs" / "benchmarks-growth.svg"
TITLES = {READY: "ready ranks", NO_OP: "no-op", BARRIER: "barrier", ALLREDUCE: "allreduce of 1 kB"}
UNITS = {READY: ("s", 1.0), NO_OP: ("ms", 1e3), BARRIER: ("ms", 1e3), ALLREDUCE: ("ms", 1e3)}
_NO_OP_MILLISECONDS = {2: 10.0, 4: 15.0}


@dataclass(frozen=True)
class Starter:
    """One side.

    Attributes:
        name, package, python: As for every side.
        command: Everything before the file for the results, given the number of ranks.
        environment: Added to what all get.
    """

    name: str
    package: str
    python: Path
    command: Callable[[int], list[str]]
    environment: Mapping[str, str] = field(default_factory=dict)


def _torchrun(ranks: int) -> list[str]:
    start = [str(PEERS), "-m", "torch.distributed.run", "--nproc-per-node", str(ranks)]
    return [*start, "-m", "benchmarks.growth_jobs.torchrun_side"]


def _mpiexec(ranks: int) -> list[str]:
    start = [str(PEERS.with_name("mpiexec.hydra")), "-n", str(ranks), str(PEERS)]
    return [*start, "-m", "benchmarks.growth_jobs.mpi_side"]


def _program(python: Path, name: str) -> Callable[[int], list[str]]:
    return lambda ranks: [str(python), "-m", f"benchmarks.growth_jobs.{name}", str(ranks)]


SIDES = (
    Starter("paibook", "paibook", NOTEBOOK.python, _program(NOTEBOOK.python, "paibook_side")),
    Starter("ipyparallel", "ipyparallel", PEERS, _program(PEERS, "ipyparallel_side")),
    Starter("torchrun + gloo", "torch", PEERS, _torchrun),
    Starter("MPICH + mpi4py", "mpich", PEERS, _mpiexec, sides.MPICH),
)


def named(what: str, ranks: int) -> str:
    """The measure's name.

    >>> named(BARRIER, 8)
    'barrier, 8 ranks'
    """
    return f"{TITLES[what]}, {ranks} ranks"


def _target(what: str, ranks: int) -> Target:
    if what == NO_OP and ranks in _NO_OP_MILLISECONDS:
        return Target(_NO_OP_MILLISECONDS[ranks])
    return Target(1.0 if what == READY else 1.05, "ratio")


MEASURES = tuple(Measure(named(what, n), UNITS[what][0], _target(what, n)) for what in TITLES for n in SIZES)


def turn(side: Starter) -> Outcomes:
    """Every measure of every number of ranks, once.

    Raises:
        RuntimeError: It failed; says how.
    """
    # The embedded cluster has room for all of them: eight ranks a worker.
    environment = {"PAIBOOK_WORKERS": "4", "PAIBOOK_MAX_WORKERS": str(max(SIZES))}
    outcomes: Outcomes = {}
    for ranks in SIZES:
        found = processes.run(side.command(ranks), {**environment, **side.environment}, SECONDS)
        for what, seconds in found.items():
            outcomes[named(what, ranks)] = Outcome(seconds * UNITS[what][1])
    return outcomes


def draw(record: Record) -> None:
    """Draw what was found, into the documents."""
    points = [
        growth_plot.Point(f"{TITLES[what]} ({UNITS[what][0]})", side, ranks, value)
        for what in TITLES
        for side in record.turns
        for ranks in SIZES
        for value in record.values(side, named(what, ranks))
        if value is not None
    ]
    PICTURE.write_text(growth_plot.svg(points))
