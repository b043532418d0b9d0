"""Gradients averaged over ranks: in buckets, and in fewer bytes where asked.

What compression leaves out of one step is not lost: each rank keeps it and adds it to its next gradient (*error
feedback*; Seide et al., 1-Bit Stochastic Gradient Descent, 2014; Stich et al., Sparsified SGD with Memory, 2018).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from paibook.comms.communicator import Communicator
from paibook.comms.compression import check_ratio, kept_of, largest
from paibook.comms.operators import IN_PLACE

Array = np.ndarray[Any, Any]
BUCKET_BYTES = 25 << 20  # as DistributedDataParallel's: large enough to be worth a message, small enough for the cache
RATIO = 0.01
COMPRESSIONS = ("fp16", "bf16", "top-k")


class GradientReducer:
    """Averages the gradients of a model that every rank holds; for training loops that use ``comm`` rather than DDP.

    Collective: every rank makes one, and calls ``reduce`` as often.

    Args:
        parameters: As for a torch optimizer: of the same shapes and types on every rank, in main memory.
        comm: The ranks.
        bucket_bytes: Gradients sent at once, at least 1.
        compression: None, ``"fp16"``, ``"bf16"`` or ``"top-k"``; the last sends a share of the values, the largest.
        ratio: That share, above 0 and at most 1.

    Raises:
        ValueError: No such compression or ratio; no parameters, or of another kind, or other ones on another rank.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        comm: Communicator,
        bucket_bytes: int = BUCKET_BYTES,
        compression: str | None = None,
        ratio: float = RATIO,
    ) -> None:
        trained = [parameter for parameter in parameters if parameter.requires_grad and parameter.numel()]
        if bucket_bytes < 1:
            raise ValueError(f"bucket_bytes must be 1 or more; got {bucket_bytes!r}")
        _check(trained, comm)
        self._means = [(bucket, _mean(compression, ratio, comm, bucket)) for bucket in _buckets(trained, bucket_bytes)]

    @torch.no_grad()
    def reduce(self) -> None:
        """Replace every gradient by its mean over the ranks; to be called by all, between ``backward`` and ``step``.

        A parameter that took no part on this rank counts as one with a gradient of zeros; one that no longer requires
        gradients does so too, and is left without.

        Raises:
            ValueError: A gradient is sparse.
        """
        for bucket, mean in self._means:
            flat = torch.cat([_flat_gradient(parameter) for parameter in bucket])
            mean.replace(flat.numpy())
            start = 0
            for parameter in bucket:
                end = start + parameter.numel()
                if parameter.requires_grad:
                    if parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
                    parameter.grad.copy_(flat[start:end].view(parameter.shape))
                start = end


class _Mean(ABC):
    """Replaces a flat array by its mean over the ranks."""

    def __init__(self, comm: Communicator) -> None:
        self.comm = comm

    @abstractmethod
    def replace(self, flat: Array) -> None: ...


class _Exact(_Mean):
    def replace(self, flat: Array) -> None:
        self.comm.Allreduce(IN_PLACE, flat)
        flat /= self.comm.size


class _Half(_Mean):
    """Sends 16 bits a value and adds up 32: each rank sums one part and hands it round (reduce-scatter, all-gather)."""

    def __init__(self, comm: Communicator, kind: torch.dtype, size: int) -> None:
        super().__init__(comm)
        width = -(-size // comm.size)
        self._mine = _Rounded(kind, width * comm.size)
        self._mean = _Rounded(kind, width)

    def replace(self, flat: Array) -> None:
        padded = np.zeros(self._mine.size, np.float32)
        padded[: flat.size] = flat
        short = self._mine.shortened(padded)
        parts = np.empty_like(short)
        self.comm.Alltoall(short, parts)
        mean = self._mine.widened(parts).reshape(self.comm.size, -1).mean(axis=0)
        whole = np.empty_like(short)
        self.comm.Allgather(self._mean.shortened(mean), whole)
        flat[:] = self._mine.widened(whole)[: flat.size]


class _Rounded:
    """Rounds values to 16 bits, and adds what it took away to the next ones."""

    def __init__(self, kind: torch.dtype, size: int) -> None:
        self.size = size
        self._kind = kind
        self._most = torch.finfo(kind).max
        self._left_out = np.zeros(size, np.float32)

    def shortened(self, values: Array) -> Array:
        """The values as 16-bit patterns. Large ones come in several steps; infinities and NaN come as they are."""
        values = values + self._left_out
        finite = np.isfinite(values)
        clipped = np.where(finite, np.clip(values, -self._most, self._most), values).astype(np.float32)
        short: Array = torch.from_numpy(clipped).to(self._kind).view(torch.int16).numpy()
        with np.errstate(invalid="ignore"):
            self._left_out = np.where(finite, values - self.widened(short), 0).astype(np.float32)
        return short

    def widened(self, short: Array) -> Array:
        """16-bit patterns as float32."""
        made: Array = torch.from_numpy(short).view(self._kind).float().numpy()
        return made


class _TopK(_Mean):
    """Sends the places and values of the largest only (Aji and Heafield, Sparse Communication for Distributed Gradient
    Descent, 2017)."""

    def __init__(self, comm: Communicator, ratio: float, size: int) -> None:
        super().__init__(comm)
        self._ratio = ratio
        self._kept = kept_of(size, ratio)
        self._left_out = np.zeros(size, np.float32)

    def replace(self, flat: Array) -> None:
        flat += self._left_out
        places = largest(np.abs(flat), self._ratio).astype(np.int32)
        values = flat[places]
        self._left_out[:] = flat
        self._left_out[places] = 0
        all_places = np.empty(self._kept * self.comm.size, np.int32)
        all_values = np.empty(self._kept * self.comm.size, flat.dtype)
        self.comm.Allgather(places, all_places)
        self.comm.Allgather(values, all_values)
        flat[:] = 0
        np.add.at(flat, all_places, all_values / self.comm.size)


def _check(trained: list[torch.nn.Parameter], comm: Communicator) -> None:
    wrong = ""
    if not trained:
        wrong = "there are no parameters that take gradients; pass model.parameters()"
    for parameter in trained:
        if parameter.device.type != "cpu" or parameter.dtype not in (torch.float32, torch.float64):
            wrong = (
                f"gradients must be float32 or float64 in main memory; a parameter is {parameter.dtype} on "
                f"{parameter.device}: train it with DistributedDataParallel"
            )
    # Ranks agree on what they find, or those where all is well would wait for the others.
    every = comm.allgather((wrong, [(tuple(p.shape), str(p.dtype)) for p in trained]))
    for rank, (said, _) in enumerate(every):
        if said:
            raise ValueError(said if rank == comm.rank else f"rank {rank}: {said}")
    for rank, (_, shapes) in enumerate(every):
        if shapes != every[0][1]:
            raise ValueError(
                f"the parameters of rank {rank} have other shapes or types than those of rank 0 "
                f"({len(shapes)} and {len(every[0][1])} of them); every rank passes the same model's, in the same order"
            )


def _mean(compression: str | None, ratio: float, comm: Communicator, bucket: list[torch.nn.Parameter]) -> _Mean:
    size = sum(parameter.numel() for parameter in bucket)
    if compression is None:
        return _Exact(comm)
    if compression in ("fp16", "bf16"):
        return _Half(comm, torch.float16 if compression == "fp16" else torch.bfloat16, size)
    if compression == "top-k":
        return _TopK(comm, check_ratio(ratio), size)
    raise ValueError(f"compression must be None or one of {', '.join(COMPRESSIONS)}; got {compression!r}")


def _buckets(parameters: list[torch.nn.Parameter], limit: int) -> Iterator[list[torch.nn.Parameter]]:
    """Parameters of one type in groups of up to ``limit`` bytes, at least one each; the last first."""
    bucket: list[torch.nn.Parameter] = []
    size = 0
    for parameter in reversed(parameters):
        bytes_of = parameter.numel() * parameter.element_size()
        if bucket and (size + bytes_of > limit or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(parameter)
        size += bytes_of
    yield bucket


def _flat_gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    gradient = parameter.grad
    if gradient is None or not parameter.requires_grad:
        return torch.zeros(parameter.numel(), dtype=parameter.dtype)
    if gradient.layout != torch.strided:
        raise ValueError(
            f"a gradient of shape {tuple(gradient.shape)} is sparse; use Embedding(sparse=False), or %%pai_ps"
        )
    return gradient.reshape(-1)
