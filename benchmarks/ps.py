"""The parameter-server suite: what moving a model costs, on ``%%pai_ps`` and its peers, one host."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.comparison import Target
from benchmarks.ps_jobs import crossed, work
from benchmarks.sides import PAIBOOK as NOTEBOOK
from benchmarks.sides import PEERS
from benchmarks.suite import Measure, Outcome, Outcomes

ROOT = Path(__file__).parents[1]
SECONDS = 300.0  # after which a part has failed
JOBS = "benchmarks.ps_jobs"


@dataclass(frozen=True)
class Part:
    """One command of a side.

    Attributes:
        arguments: Of the side's job, after the file.
        measures: What the command calls a value, to the measure's name.
        environment: Added to the side's.
        needs_data: It works on the shared data, and is left out where that is missing.
    """

    measures: Mapping[str, str]
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    needs_data: bool = False


@dataclass(frozen=True)
class Starter:
    """One side.

    Attributes:
        name, package, python: As for every side.
        job: Module that is run.
        parts: The commands of its turn.
        launcher: A program beside the interpreter, and its arguments, where one starts the job's processes.
        environment: Added to what all get.
    """

    name: str
    package: str
    python: Path
    job: str
    parts: tuple[Part, ...]
    launcher: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def command(self, part: Part, file: Path) -> list[str]:
        """The command that runs a part and writes what it found to a file."""
        launcher = list(self.launcher)
        if launcher:
            launcher[0] = str(self.python.with_name(launcher[0]))
        return [*launcher, str(self.python), "-m", f"{JOBS}.{self.job}", str(file), *part.arguments]


def over_sockets(job: str) -> str:
    """The name of a job's measure where the processes share no memory."""
    return f"{job}, sockets"


_NAMES = tuple(job.name for job in work.JOBS)
TWO_WORKERS, REPLICATED = f"{work.SPARSE.name}, 2 servers 2 workers", f"{work.SPARSE.name}, with a replica"
LOGISTIC = f"logistic regression to log-loss {crossed.GOAL}"
ANY_TRANSPORT = Part({name: name for name in _NAMES})
SOCKETS = {name: over_sockets(name) for name in _NAMES}


def _together(program: str, measure: str) -> Part:
    return Part({work.SPARSE.name: measure}, (program,))


def _logistic(*arguments: str) -> Part:
    return Part({"logistic": LOGISTIC}, arguments, needs_data=True)


PAIBOOK = Starter(
    "paibook",
    "paibook",
    NOTEBOOK.python,
    "paibook_side",
    (
        Part(ANY_TRANSPORT.measures, ("transfers",)),
        Part(SOCKETS, ("transfers",), {"PAIBOOK_SHARED_MEMORY": "0"}),
        _together("two servers", TWO_WORKERS),
        _together("replicated", REPLICATED),
        _logistic("logistic"),
    ),
)
ONE_SERVER, ONE_COPY = "paibook, 1 server", "paibook, no replica"
RAY, DASK, RPC, GLOO, MPI = "Ray actors", "Dask actors", "torch RPC", "gloo send/recv", "mpi4py send/recv"
BARE, MEMORY, VOWPAL = "bare recv_into", "raw shared memory", "Vowpal Wabbit, 1 process"
_TORCHRUN = ("python", "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python")
SIDES = (
    PAIBOOK,
    Starter(
        RAY,
        "ray",
        PEERS,
        "ray_side",
        (ANY_TRANSPORT,),
        environment={"RAY_raylet_start_wait_time_s": "120"},  # a busy machine takes longer than its 30
    ),
    Starter(DASK, "distributed", PEERS, "dask_side", (ANY_TRANSPORT,)),
    Starter(RPC, "torch", PEERS, "rpc_side", (ANY_TRANSPORT,), _TORCHRUN),
    Starter(GLOO, "torch", PEERS, "gloo_side", (ANY_TRANSPORT,), _TORCHRUN),
    Starter(
        MPI,
        "mpi4py",
        PEERS,
        "mpi_side",
        (ANY_TRANSPORT,),
        ("mpiexec.hydra", "-n", "2"),
        # Two MPIs live in that environment; this one's launcher has a name of its own.
        {"MPI4PY_MPIABI": "mpich", "LD_LIBRARY_PATH": str(PEERS.parents[1] / "lib")},
    ),
    # Both ceilings need nothing but NumPy, and run in paibook's own interpreter.
    Starter(BARE, "numpy", NOTEBOOK.python, "socket_side", (Part(SOCKETS),)),
    Starter(MEMORY, "numpy", NOTEBOOK.python, "memory_side", (ANY_TRANSPORT,)),
    Starter(ONE_SERVER, "paibook", NOTEBOOK.python, "paibook_side", (_together("one server", TWO_WORKERS),)),
    Starter(ONE_COPY, "paibook", NOTEBOOK.python, "paibook_side", (_together("unreplicated", REPLICATED),)),
    Starter(VOWPAL, "vowpalwabbit", PEERS, "vowpal_side", (_logistic(),)),
)


def _ratios(**limits: float) -> dict[str, Target]:
    sides = {"ray": RAY, "dask": DASK, "memory": MEMORY, "bare": BARE}
    return {sides[side]: Target(limit, "ratio") for side, limit in limits.items()}


_EVEN = Target(1.0, "ratio")
_DENSE = [
    measure
    for job in (work.DENSE_4, work.DENSE_100)
    for measure in (
        Measure(job.name, "GB/s", _EVEN, "higher", _ratios(ray=5, dask=5, memory=0.5)),
        Measure(over_sockets(job.name), "GB/s", _EVEN, "higher", _ratios(bare=0.8)),
    )
]
MEASURES = (
    *_DENSE,
    Measure(work.SPARSE.name, "Mkeys/s", _EVEN, "higher", _ratios(ray=6)),
    Measure(over_sockets(work.SPARSE.name), "Mkeys/s", Target(0.8, "ratio"), "higher"),
    Measure(work.ROUND_TRIP.name, "us", Target(60)),
    Measure(over_sockets(work.ROUND_TRIP.name), "us", Target(100)),
    Measure(TWO_WORKERS, "Mkeys/s", Target(1.6, "ratio"), "higher"),
    Measure(REPLICATED, "Mkeys/s", Target(0.5, "ratio"), "higher"),
    Measure(LOGISTIC, "s", Target(1.5, "ratio")),
)


def turn(side: Starter) -> Outcomes:
    """Every part of a side, once. What a part leaves out, its version of paibook has not got.

    Raises:
        RuntimeError: It failed; says how.
    """
    outcomes: Outcomes = {}
    for part in side.parts:
        if part.needs_data and not (crossed.DATA / crossed.TRAIN).exists():
            print(f"skipped: {', '.join(part.measures.values())} needs {crossed.TRAIN} in {crossed.DATA}", flush=True)
            continue
        for found, value in _run(side, part).items():
            outcomes[part.measures[found]] = Outcome(None, "wrong") if value is None else Outcome(value)
    return outcomes


def _run(side: Starter, part: Part) -> dict[str, float | None]:
    # One thread a process, as many as torchrun gives.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PAIBOOK_WORKERS": "2"}
    with tempfile.TemporaryDirectory(prefix="paibook-benchmarks-") as folder:
        file, said = Path(folder) / "found.json", Path(folder) / "said"
        with said.open("wb") as output:
            process = subprocess.Popen(
                side.command(part, file),
                cwd=ROOT,
                env=environment | dict(side.environment) | dict(part.environment),
                stdout=output,
                stderr=output,
                start_new_session=True,  # so that one that hangs goes with all it has started
            )
            try:
                code = process.wait(SECONDS)
            except subprocess.TimeoutExpired as error:
                raise RuntimeError(
                    f"{' '.join(part.arguments) or side.job} took longer than {SECONDS:.0f} s"
                ) from error
            finally:
                _end(process)
        if code or not file.exists():
            raise RuntimeError(" / ".join(said.read_text(errors="replace").strip().splitlines()[-5:]))
        found: dict[str, float | None] = json.loads(file.read_text())
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    """End whatever of a part is still there."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


if __name__ == "__main__":
    sys.exit("run it with: python -m benchmarks ps")
