"""The ways in which ranks that are processes communicate, by name: when each is possible, and who makes it.

Libraries are imported when a way is chosen, so that ranks that share memory never load torch.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from paibook.comms import segment
from paibook.comms.communicator import Communicator
from paibook.comms.imports import import_torch
from paibook.comms.rendezvous import Meeting
from paibook.errors import PlanError

AUTO, GLOO, SHARED, NCCL, MPI = "auto", "gloo", "shared", "nccl", "mpi"
HIERARCHICAL = "hierarchical"  # shared memory on each host and gloo between them; chosen by itself

# Where mpiexec says a process's rank: MPICH and its kin, Open MPI, and PMIx.
_MPI_RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK")

Make = Callable[[int, int, Meeting, str], Communicator]


@dataclass(frozen=True)
class Backend:
    """One way to communicate.

    Attributes:
        missing: Asked on a rank's process: what it lacks, and where to get it; empty where it lacks nothing.
        make: Makes a rank's communicator, of its rank, the number of ranks, their meeting, and the group's name.
        one_host: Whether the ranks must share a host.
    """

    missing: Callable[[], str]
    make: Make
    one_host: bool = False


def choose(name: str, missing: Sequence[Mapping[str, str]], hosts: Sequence[str]) -> str:
    """The backend for ``--backend name``.

    Args:
        missing: For each rank, what it lacks, for the backends of ``candidates(name)``.
        hosts: Each rank's host.

    Returns:
        A key of ``BACKENDS``.

    Raises:
        PlanError: The one asked for is not possible; says where, and what is missing.
    """
    one_host = len(set(hosts)) == 1
    if name == AUTO:
        if any(lacks[SHARED] for lacks in missing):
            return GLOO
        if one_host:
            return SHARED
        return HIERARCHICAL if all(hosts.count(host) > 1 for host in hosts) else GLOO
    if BACKENDS[name].one_host and not one_host:
        raise PlanError(f"--backend {name} is for ranks of one host; these are on {len(set(hosts))}: use auto or gloo")
    for rank, lacks in enumerate(missing):
        if lacks[name]:
            raise PlanError(f"--backend {name} is not possible on rank {rank}: {lacks[name]}")
    return name


def candidates(name: str) -> tuple[str, ...]:
    """What the ranks are to be asked about before ``choose``."""
    return (SHARED,) if name == AUTO else (name,)


def lacking(names: Sequence[str]) -> dict[str, str]:
    """What this process lacks, by backend."""
    return {name: BACKENDS[name].missing() for name in names}


def mpi_place() -> int:
    """This process's rank in its MPI world, as ``mpiexec`` has told it; -1 outside one."""
    for name in _MPI_RANKS:
        if name in os.environ:
            return int(os.environ[name])
    return -1


def _shared_lacks() -> str:
    return "" if segment.supported() else "shared memory is used on Linux on x86-64; use --backend gloo"


def _shared(rank: int, size: int, meeting: Meeting, name: str) -> Communicator:
    from paibook.comms.shared_memory import SharedMemoryCommunicator

    return SharedMemoryCommunicator(rank, size, meeting, name)


def _torch_lacks() -> str:
    return "" if importlib.util.find_spec("torch") else "torch is not installed: pip install 'paibook[torch]'"


def _gloo(rank: int, size: int, meeting: Meeting, name: str) -> Communicator:
    import_torch()
    from paibook.comms.gloo import TorchCommunicator

    return TorchCommunicator(rank, size, meeting, name)


def _hierarchical(rank: int, size: int, meeting: Meeting, name: str) -> Communicator:
    import_torch()
    from paibook.comms.hierarchical import HierarchicalCommunicator

    return HierarchicalCommunicator(rank, size, meeting, name)


def _mpi_lacks() -> str:
    if mpi_place() < 0:
        return (
            "it is no MPI process. Start ipyparallel engines by mpiexec (ipcluster start -n 4 --engines=mpi) and "
            "attach to them (%pai_cluster attach ipyparallel:PROFILE)"
        )
    return "" if importlib.util.find_spec("mpi4py") else "mpi4py is not installed: pip install 'paibook[mpi]'"


def _mpi(rank: int, size: int, meeting: Meeting, name: str) -> Communicator:
    from paibook.comms.mpi_world import MpiCommunicator

    return MpiCommunicator(rank, size, meeting, name)


def _nccl_lacks() -> str:
    lacks = _torch_lacks()
    if lacks:
        return lacks
    import_torch()
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA; install one that has it (pytorch.org/get-started)"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no GPU; NCCL moves the memory of GPUs alone"
    return "" if torch.distributed.is_nccl_available() else f"torch {torch.__version__} is built without NCCL"


def _nccl(rank: int, size: int, meeting: Meeting, name: str) -> Communicator:
    import_torch()
    from paibook.comms.nccl import NcclCommunicator

    return NcclCommunicator(rank, size, meeting, name)


BACKENDS: Mapping[str, Backend] = {
    GLOO: Backend(_torch_lacks, _gloo),
    SHARED: Backend(_shared_lacks, _shared, one_host=True),
    HIERARCHICAL: Backend(_torch_lacks, _hierarchical),
    NCCL: Backend(_nccl_lacks, _nccl),
    MPI: Backend(_mpi_lacks, _mpi),
}
NAMES = (AUTO, GLOO, SHARED, NCCL, MPI)  # what ``--backend`` takes
