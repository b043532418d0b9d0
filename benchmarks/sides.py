"""The sides: how paibook and each peer runs a cell on two ranks, used the way its own documentation says."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.frontend import FrontEnd

RANKS = 2
PEERS = Path(__file__).parent / ".venv-peers" / "bin" / "python"

# Both MPIs live in one environment, and the names they share, mpiexec among them, belong to the one installed last:
# start ``mpiexec.hydra`` or ``prterun``, which only one of them has.
_MPI_LIBRARIES = {"LD_LIBRARY_PATH": str(PEERS.parents[1] / "lib")}
MPICH = {"MPI4PY_MPIABI": "mpich", **_MPI_LIBRARIES}
OPEN_MPI = {
    "MPI4PY_MPIABI": "openmpi",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    **_MPI_LIBRARIES,
}
_IPYKERNEL = ("-m", "ipykernel_launcher", "-f", "{connection_file}")


@dataclass(frozen=True)
class Side:
    """One way to run a cell on ranks from a notebook.

    Attributes:
        name: As shown.
        package: Distribution whose version is shown and whose absence skips the side.
        python: The interpreter it is installed in.
        cells: Run once, in order, before the first cell on the ranks.
        on_ranks: Turns code into the cell that runs it on every rank; ``rank`` is defined there.
        module: Arguments of the kernel's command.
        environment: Added to the kernel's.
        interrupt_mode: How its kernel wants to be interrupted.
        warm: Run once, instead of ``cells``, to have the cluster without any ranks; none where that cannot be.
        start: Run then, and counted, where ranks have to be asked for.
        settle: Seconds to wait after its set-up cells, for a side that says it is ready before it is; counted.
    """

    name: str
    package: str
    python: Path
    cells: tuple[str, ...]
    on_ranks: Callable[[str], str]
    module: tuple[str, ...] = _IPYKERNEL
    environment: dict[str, str] = field(default_factory=dict)
    interrupt_mode: str = "signal"
    warm: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    settle: float = 0.0

    def front_end(self) -> FrontEnd:
        """A fresh kernel, not started yet."""
        return FrontEnd([str(self.python), *self.module], self.environment, self.interrupt_mode)


def _magic(line: str) -> Callable[[str], str]:
    return lambda code: f"{line}\n{code}"


def _client_run(code: str) -> str:
    return textwrap.dedent(f"""\
        def cell(dask_worker):
            namespace = vars(__import__("__main__"))
            namespace["rank"] = dask_worker.name
            exec({code!r}, namespace)
        _ = client.run(cell)""")


def _with_rank_from_environment(code: str) -> str:
    return "import os; rank = int(os.environ['RANK'])\n" + code if "rank" in code else code


PAIBOOK = Side(
    name="paibook",
    package="paibook",
    python=Path(sys.executable),
    cells=("%load_ext paibook",),
    on_ranks=_magic(f"%%pai_allreduce -n {RANKS}"),
    warm=("%load_ext paibook", "%pai_cluster start"),
)

_VIEW = textwrap.dedent(f"""\
    view = client[:]
    view.block = True
    view.activate()
    view.scatter("rank", range({RANKS}), flatten=True, block=True)""")

IPYPARALLEL = Side(
    name="ipyparallel",
    package="ipyparallel",
    python=PEERS,
    cells=(
        textwrap.dedent(f"""\
            import ipyparallel
            cluster = ipyparallel.Cluster(n={RANKS})
            client = cluster.start_and_connect_sync()
            """)
        + _VIEW,
    ),
    on_ranks=_magic("%%px"),
    warm=(
        textwrap.dedent(f"""\
            import ipyparallel
            cluster = ipyparallel.Cluster(n={RANKS})
            cluster.start_controller_sync()
            client = cluster.connect_client_sync()"""),
    ),
    start=(f"cluster.start_engines_sync({RANKS})\nclient.wait_for_engines({RANKS}, interactive=False)\n" + _VIEW,),
)

JUPYTER_DISTRIBUTED = Side(
    name="jupyter-distributed",
    package="jupyter-distributed",
    python=PEERS,
    cells=(),
    on_ranks=_with_rank_from_environment,
    # What its server extension does when the "Processes" field is set: the same kernel behind its proxy.
    module=("-m", "jupyter_distributed.kernel", "-f", "{connection_file}"),
    environment={"JUPYTER_DISTRIBUTED_BASE_KERNEL": "python3", "JUPYTER_DISTRIBUTED_WORLD_SIZE": str(RANKS)},
    interrupt_mode="message",
)

NBDISTRIBUTED = Side(
    name="nbdistributed",
    package="nbdistributed",
    python=PEERS,
    cells=("%load_ext nbdistributed", f"%dist_init -n {RANKS}"),
    on_ranks=_magic("%%distributed"),
    # A cell sent before its workers listen is lost, and times out after 30 s; nothing tells when they do.
    settle=4.0,
    # It starts its workers with whatever `python` comes first.
    environment={"PATH": f"{PEERS.parent}{os.pathsep}{os.environ.get('PATH', '')}"},
)

DASK = Side(
    name="Dask client.run",
    package="distributed",
    python=PEERS,
    cells=(
        "from distributed import Client, LocalCluster\n"
        f"client = Client(LocalCluster(n_workers={RANKS}, threads_per_worker=1, dashboard_address=None))",
    ),
    on_ranks=_client_run,
)

ALL = (PAIBOOK, JUPYTER_DISTRIBUTED, IPYPARALLEL, NBDISTRIBUTED, DASK)
