"""Bare MPI: ``mpiexec -n RANKS python -m benchmarks.growth_jobs.mpi_side FILE``."""

from __future__ import annotations

from typing import Any

from mpi4py import MPI

from benchmarks.growth_jobs import operations

if __name__ == "__main__":
    world = MPI.COMM_WORLD

    def add_up(array: Any) -> None:
        world.Allreduce(MPI.IN_PLACE, array)

    found = operations.collectives(world.Get_rank(), world.Get_size(), world.Barrier, add_up)
    if world.Get_rank() == 0:
        operations.write(found)
