"""Cells on ipyparallel engines that mpiexec has started: ``--backend mpi`` is MPI itself."""

from __future__ import annotations

import importlib.util
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paibook.clusters import connect
from paibook.errors import PlanError, RunCancelled
from tests.paibook.runtimes.allreduce.conftest import Bench

MPIEXEC = Path(sysconfig.get_path("scripts")) / "mpiexec"
HERE = pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None or not (MPIEXEC.exists() or shutil.which("mpiexec")),
    reason="no MPI: pip install 'paibook[mpi]'",
)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    import ipyparallel

    folder = tmp_path_factory.mktemp("profile")
    mpiexec = str(MPIEXEC) if MPIEXEC.exists() else "mpiexec"
    with pytest.MonkeyPatch.context() as patch:
        launcher = "ipyparallel.cluster.launcher.MPIEngineSetLauncher.mpi_cmd"
        patch.setattr(launcher, [mpiexec])
        options = {"engines": "mpi", "profile_dir": str(folder), "controller_ip": "127.0.0.1"}
        with ipyparallel.Cluster(n=3, **options) as client:
            client.wait_for_engines(3, timeout=90, interactive=False)
            (connection_file,) = (folder / "security").glob("*-client.json")
            cluster = connect(str(connection_file))
            yield Bench(cluster, tmp_path_factory.mktemp("run"))
            cluster.close()


MPI = {"backend": "mpi"}


@HERE
def test_cells_on_mpi_processes(engines: Any) -> None:
    cell = """
        import numpy as np
        total = np.zeros(100_000)
        comm.Allreduce(np.full(100_000, rank + 1.0), total)
        comm.send(rank, (rank + 1) % world_size)
        type(comm._connect()).__name__, total[-1], comm.recv(), comm.allgather(str(rank))
    """
    values = engines.run(cell, workers=3, options=MPI).values
    assert values == {rank: ("MpiCommunicator", 6.0, (rank - 1) % 3, ["0", "1", "2"]) for rank in range(3)}
    assert engines.run("type(comm._connect()).__name__, comm.allreduce(1)", workers=2, options=MPI).values == {
        0: ("MpiCommunicator", 2),
        1: ("MpiCommunicator", 2),
    }


@HERE
def test_stop_inside_a_collective_of_mpi(engines: Any) -> None:
    engines.run("x = rank", workers=3, options=MPI)
    cell = "import time\nprint('here', flush=True)\ntime.sleep(60) if rank == 1 else comm.Barrier()"
    assert isinstance(engines.cancelled(cell, workers=3, options=MPI), RunCancelled)
    values = engines.run("x, comm.allreduce(1)", workers=3, options=MPI).values
    assert values == {rank: (rank, 3) for rank in range(3)}


def test_other_clusters_say_what_is_missing(embedded: Any) -> None:
    with pytest.raises(PlanError, match="--backend mpi is not possible on rank 0: it is no MPI process"):
        embedded.run("1", options=MPI)
    with pytest.raises(PlanError, match=r"--backend nccl is not possible on rank 0: torch .* (without CUDA|no GPU)"):
        embedded.run("1", options={"backend": "nccl"})
    assert embedded.run("comm.allreduce(1)").values == {0: 2, 1: 2}
