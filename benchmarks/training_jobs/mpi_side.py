"""Bare MPI: ``mpiexec -n 2 python -m benchmarks.training_jobs.mpi_side FILE``."""

from __future__ import annotations

from typing import Any

from mpi4py import MPI

from benchmarks.training_jobs import steps

if __name__ == "__main__":
    world = MPI.COMM_WORLD

    def add_up(array: Any) -> None:
        world.Allreduce(MPI.IN_PLACE, array)

    found = {"logistic": steps.logistic(world.Get_rank(), world.Get_size(), add_up)}
    if world.Get_rank() == 0:
        steps.write(found)
