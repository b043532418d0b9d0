"""Bare MPI: ``mpiexec -n 2 python -m benchmarks.ps_jobs.mpi_side FILE``; rank 0 serves."""

from __future__ import annotations

from typing import Any

from mpi4py import MPI

from benchmarks.ps_jobs import messages, work

if __name__ == "__main__":
    world = MPI.COMM_WORLD
    peer = 1 - world.Get_rank()

    def send(array: Any) -> None:
        world.Send(array, peer)

    def receive(array: Any) -> None:
        world.Recv(array, peer)

    if world.Get_rank() == 0:
        messages.serve(send, receive)
    else:
        work.write(messages.measure(send, receive))
