"""Bare MPI: ``mpiexec -n 2 python -m benchmarks.allreduce_jobs.mpi_side FILE``."""

from __future__ import annotations

from typing import Any

from mpi4py import MPI

from benchmarks.allreduce_jobs import timing

if __name__ == "__main__":
    world = MPI.COMM_WORLD

    def add_up(array: Any) -> None:
        world.Allreduce(MPI.IN_PLACE, array)

    result = timing.found(world.Get_rank(), world.Get_size(), add_up)
    if world.Get_rank() == 0:
        timing.write(result)
