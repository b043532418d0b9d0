"""The ceiling for shared memory: an array is copied in, a byte through a pipe says so, and it is copied out."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.ps_jobs import messages, work

JOBS = (work.DENSE_4, work.DENSE_100)  # one block a direction holds one array, which a push of keys would overwrite
SMALL = 64  # bytes; headers go through the pipe


def main() -> None:
    """A server process and this one, the worker."""
    size = max(4 * job.rows * job.width for job in JOBS)
    blocks = [SharedMemory(create=True, size=size) for _ in range(2)]
    try:
        context = multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe()
        server = context.Process(target=serve, args=(theirs, [block.name for block in blocks]))
        server.start()
        theirs.close()
        work.write(messages.measure(*_moves(mine, blocks[0], blocks[1]), JOBS))
        server.join()
    finally:
        for block in blocks:
            block.close()
            block.unlink()


def serve(pipe: Connection, names: list[str]) -> None:
    """The server's process."""
    inward, outward = (SharedMemory(name) for name in names)
    messages.serve(*_moves(pipe, outward, inward), JOBS)
    inward.close()
    outward.close()


def _moves(pipe: Connection, outward: SharedMemory, inward: SharedMemory) -> tuple[messages.Move, messages.Move]:
    def send(array: NDArray[Any]) -> None:
        if array.nbytes <= SMALL:
            pipe.send_bytes(array.tobytes())
            return
        np.ndarray(array.shape, array.dtype, outward.buf)[...] = array
        pipe.send_bytes(b"\0")

    def receive(array: NDArray[Any]) -> None:
        said = pipe.recv_bytes()
        source = inward.buf if array.nbytes > SMALL else said
        array[...] = np.ndarray(array.shape, array.dtype, source)

    return send, receive


if __name__ == "__main__":
    main()
