"""paibook's communicators do what MPI does: the programs of ``mpi_programs`` give what they gave on MPICH.

``mpi_results.json`` holds those answers, by number of ranks; where mpi4py and ``mpiexec`` are, it is checked too.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from paibook.comms import Communicator

HERE = Path(__file__).parent
RESULTS: dict[str, dict[str, list[Any]]] = json.loads((HERE / "mpi_results.json").read_text())
SIZES = sorted(map(int, RESULTS))


def _load(name: str) -> Any:
    specification = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


mpi_programs = _load("mpi_programs")
worlds = _load("test_communicator")
for module in (mpi_programs, worlds, sys.modules[__name__]):
    cloudpickle.register_pickle_by_value(module)


@pytest.fixture(scope="module")
def by_kind() -> Iterator[Any]:
    made = {kind: worlds.Processes(kind) for kind in ("gloo", "shared memory")}
    yield made
    for world in made.values():
        world.close()


@pytest.fixture(params=["threads", *worlds.KINDS])
def world(request: pytest.FixtureRequest, by_kind: Any) -> Any:
    return worlds.Threads() if request.param == "threads" else by_kind[request.param]


def on_the_world(function: Callable[[Any, Any], Any]) -> Callable[[Communicator], Any]:
    def work(comm: Communicator) -> Any:
        import paibook
        from paibook.comms.positions import Position, positioned

        with positioned(Position(comm.rank, comm.size, comm)):
            return mpi_programs.plain(function(paibook.MPI, paibook.MPI.COMM_WORLD))

    return work


def on_a_part(function: Callable[[Any, Any], Any]) -> Callable[[Communicator], Any]:
    """Run it on a communicator of all ranks but the last, in the opposite order."""

    def work(comm: Communicator) -> Any:
        import paibook
        from paibook.comms.positions import Position, positioned

        MPI = paibook.MPI
        with positioned(Position(comm.rank, comm.size, comm)):
            part = comm.split(MPI.UNDEFINED if comm.rank == comm.size - 1 else 4, -comm.rank)
            return None if part == MPI.COMM_NULL else mpi_programs.plain(function(MPI, part))

    return work


@pytest.mark.parametrize("size", SIZES)
def test_the_answers_of_real_mpi(world: Any, size: int) -> None:
    for name, function in mpi_programs.PROGRAMS.items():
        answers = worlds.run(world, size, on_the_world(function))
        assert answers == RESULTS[str(size)][name], name


@pytest.mark.parametrize("size", [2, 3])
def test_a_part_of_the_ranks_gives_them_too(world: Any, size: int) -> None:
    for name, function in mpi_programs.PROGRAMS.items():
        answers = worlds.run(world, size + 1, on_a_part(function))
        assert answers[:size][::-1] == RESULTS[str(size)][name], name


def _mpiexec() -> str | None:
    beside = Path(sysconfig.get_path("scripts")) / "mpiexec"
    return str(beside) if beside.exists() else shutil.which("mpiexec")


@pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="no mpi4py: pip install 'paibook[mpi]'")
@pytest.mark.skipif(_mpiexec() is None, reason="no mpiexec: pip install 'paibook[mpi]'")
@pytest.mark.parametrize("size", SIZES)
def test_real_mpi_still_gives_the_recorded_answers(size: int, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    program = [sys.executable, str(HERE / "mpi_programs.py"), str(path)]
    subprocess.run([_mpiexec(), "-n", str(size), *program], check=True, timeout=60)
    assert json.loads(path.read_text()) == RESULTS[str(size)]
