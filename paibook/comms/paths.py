"""Which way an all-reduce of a buffer takes, by backend, in words."""

from __future__ import annotations

from paibook.comms.backends import GLOO, HIERARCHICAL, MPI, NCCL, SHARED
from paibook.comms.message_collectives import SMALL_BYTES
from paibook.comms.shared_collectives import CHUNK_BYTES, DIRECT_BYTES

THREADS = "threads"  # of one process, in place of a backend

Path = tuple[int | None, str]  # the largest array in bytes that goes so; None: any that is larger


def allreduce_paths(backend: str) -> list[Path]:
    """How ``Allreduce`` of a small and of a large array is done.

    Args:
        backend: A key of ``BACKENDS``, or ``THREADS``.

    Returns:
        The ways, for the smallest arrays first.
    """
    return list(_PATHS[backend])


def by_messages() -> list[Path]:
    """The ways of operators and types that a library does not know."""
    return [
        (SMALL_BYTES, "every rank sends its array to every other one"),
        (None, "each rank adds up a part, then the parts go round a ring (reduce-scatter and all-gather)"),
    ]


_PATHS: dict[str, list[Path]] = {
    SHARED: [
        (DIRECT_BYTES, "each rank writes its array to the shared memory, and adds up all of them itself: one turn"),
        (
            None,
            f"in chunks of {CHUNK_BYTES >> 20} MiB through the shared memory: each rank adds up a part of each, and "
            "reads the others' sums (reduce-scatter and all-gather)",
        ),
    ],
    HIERARCHICAL: [
        (
            None,
            "reduced in each host's shared memory, then by gloo between the hosts' first ranks, then handed on there",
        ),
    ],
    GLOO: [(None, "given to torch's gloo, which does not tell which rank sends to which")],
    NCCL: [(None, "CUDA tensors are given to NCCL, all else to gloo; neither tells which rank sends to which")],
    MPI: [(None, "given to MPI, which chooses by size, and does not tell which rank sends to which")],
    THREADS: [(None, "each rank reads the others' arrays where they are, in the memory of the one process")],
}
