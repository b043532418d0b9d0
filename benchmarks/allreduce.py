"""The all-reduce suite: what one allreduce of float32 costs, by size, on paibook's ``comm`` and its peers, one host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.comparison import Target
from benchmarks.sides import PAIBOOK as NOTEBOOK
from benchmarks.sides import PEERS
from benchmarks.suite import Measure, Outcome, Outcomes

ROOT = Path(__file__).parents[1]
SECONDS = 300.0  # after which a side has failed
JOBS = "benchmarks.allreduce_jobs"


@dataclass(frozen=True)
class Starter:
    """One side.

    Attributes:
        name, package, python: As for every side.
        job: Module that times it, on each rank or in the process that starts them.
        launcher: Starts the ranks: a program beside the interpreter, and its arguments; ``{ranks}`` is how many.
        environment: Added to what all get.
    """

    name: str
    package: str
    python: Path
    job: str
    launcher: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def command(self, ranks: int, file: Path) -> list[str]:
        """The command that runs it and writes what it found to a file."""
        launcher = [word.format(ranks=ranks) for word in self.launcher]
        if launcher:
            launcher[0] = str(self.python.with_name(launcher[0]))
        return [*launcher, str(self.python), "-m", f"{JOBS}.{self.job}", str(file)]


def _mpi(abi: str) -> dict[str, str]:
    # Both MPIs live in one environment, and the file names they share belong to the one installed last.
    return {"MPI4PY_MPIABI": abi, "LD_LIBRARY_PATH": str(PEERS.parents[1] / "lib")}


PAIBOOK = Starter("paibook", "paibook", NOTEBOOK.python, "paibook_side")
GLOO, OPEN_MPI, MPICH = "torch gloo", "Open MPI", "MPICH"
SIDES = (
    PAIBOOK,
    Starter(
        GLOO,
        "torch",
        PEERS,
        "gloo_side",
        ("python", "-m", "torch.distributed.run", "--nproc-per-node", "{ranks}", "--no-python"),
    ),
    Starter(
        OPEN_MPI,
        "openmpi",
        PEERS,
        "mpi_side",
        ("prterun", "--personality", "ompi", "--map-by", ":OVERSUBSCRIBE", "-n", "{ranks}"),
        {**_mpi("openmpi"), "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"},
    ),
    Starter(MPICH, "mpich", PEERS, "mpi_side", ("mpiexec.hydra", "-n", "{ranks}"), _mpi("mpich")),
)


def _measure(name: str, beside_gloo: float, target: Target | None = None) -> Measure:
    even = Target(1.0, "ratio")
    return Measure(name, "us", target or even, targets={GLOO: Target(1 / beside_gloo, "ratio")})


MEASURES = (
    _measure("4 B", 10, Target(30)),  # a call of Python's weighs here, not the memory
    _measure("64 KB", 5),
    _measure("1 MB", 3),
    _measure("64 MB", 2.5),
    _measure("1 MB, 4 ranks", 3),
)


def turn(side: Starter) -> Outcomes:
    """All sizes on two ranks, and one size on four.

    Raises:
        RuntimeError: It failed; says how.
    """
    outcomes: Outcomes = {}
    for ranks in (2, 4):
        for size, seconds in _run(side, ranks).items():
            name = size if ranks == 2 else f"{size}, {ranks} ranks"
            outcomes[name] = Outcome(None, "wrong") if seconds is None else Outcome(seconds * 1e6)
    return outcomes


def _run(side: Starter, ranks: int) -> dict[str, float | None]:
    # As many threads as torchrun gives: one a rank.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PAIBOOK_WORKERS": str(ranks)}
    with tempfile.TemporaryDirectory(prefix="paibook-benchmarks-") as folder:
        file = Path(folder) / "found.json"
        ended = subprocess.run(
            side.command(ranks, file),
            cwd=ROOT,
            env=environment | dict(side.environment),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if ended.returncode or not file.exists():
            raise RuntimeError(" / ".join(ended.stderr.strip().splitlines()[-5:]))
        found: dict[str, float | None] = json.loads(file.read_text())
    return found


if __name__ == "__main__":
    sys.exit("run it with: python -m benchmarks allreduce")
