"""The training suite: what a step costs on two ranks of paibook, beside ranks that torchrun or mpiexec started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import processes, sides
from benchmarks.comparison import Target
from benchmarks.sides import PAIBOOK as NOTEBOOK
from benchmarks.sides import PEERS
from benchmarks.suite import Measure, Outcome, Outcomes
from benchmarks.training_jobs.reference import losses

SECONDS = 300.0  # after which a side has failed
WITHIN = 1e-3  # of the loss, which depends on the order in which floats are added up
LOGISTIC, LENET = "logistic regression, a step", "LeNet under DDP, a step"


@dataclass(frozen=True)
class Starter:
    """One side.

    Attributes:
        name, package, python: As for every side.
        command: Runs the steps, after the interpreter; the file for the results follows.
        program: The interpreter, or a program beside it that is given.
        environment: Added to what all get.
    """

    name: str
    package: str
    python: Path
    command: tuple[str, ...]
    program: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


PAIBOOK = Starter("paibook", "paibook", NOTEBOOK.python, ("-m", "benchmarks.training_jobs.paibook_side"))
SIDES = (
    PAIBOOK,
    Starter(
        "torchrun + gloo",
        "torch",
        PEERS,
        ("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "benchmarks.training_jobs.torchrun_side"),
    ),
    Starter(
        "mpiexec + mpi4py",
        "mpi4py",
        PEERS,
        ("-n", "2", str(PEERS), "-m", "benchmarks.training_jobs.mpi_side"),
        "mpiexec.hydra",
        sides.MPICH,
    ),
)
MEASURES = (Measure(LOGISTIC, "ms", Target(1.05, "ratio")), Measure(LENET, "ms", Target(1.05, "ratio")))
_JOBS = {"logistic": LOGISTIC, "lenet": LENET}


def turn(side: Starter) -> Outcomes:
    """Both jobs, once.

    Raises:
        RuntimeError: It failed, or learned something else than it should; says how.
    """
    program = side.python.with_name(side.program) if side.program else side.python
    found = processes.run([str(program), *side.command], {"PAIBOOK_WORKERS": "2", **side.environment}, SECONDS)
    outcomes: Outcomes = {}
    for job, (seconds, loss) in found.items():
        if abs(loss - losses()[job]) > WITHIN:
            raise RuntimeError(f"{job}: the last loss is {loss} where {losses()[job]} is right")
        outcomes[_JOBS[job]] = Outcome(seconds * 1e3)
    return outcomes
