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
from paibook.comms.operators import IN_PLACE

BUCKET_BYTES = 25 << 20  # as DistributedDataParallel's: large enough to be worth a message, small enough for the cache
RATIO = 0.01
COMPRESSIONS = ("fp16", "bf16", "top-k")


class GradientReducer:
    """Averages the gradients of a model that every rank holds; for training loops that use ``comm`` rather than DDP.

    Args:
        parameters: As for a torch optimizer: the same ones on every rank, in the same order, in main memory.
        comm: The ranks.
        bucket_bytes: Gradients sent at once.
        compression: None, ``"fp16"``, ``"bf16"`` or ``"top-k"``; the last sends a share of the values, the largest.
        ratio: That share, above 0 and at most 1.

    Raises:
        ValueError: No such compression or ratio; no parameters, or of another kind.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        comm: Communicator,
        bucket_bytes: int = BUCKET_BYTES,
        compression: str | None = None,
        ratio: float = RATIO,
    ) -> None:
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        if not trained:
            raise ValueError("there are no parameters that take gradients; pass model.parameters()")
        for parameter in trained:
            if parameter.device.type != "cpu" or parameter.dtype not in (torch.float32, torch.float64):
                raise ValueError(
                    f"gradients must be float32 or float64 in main memory; a parameter is {parameter.dtype} on "
                    f"{parameter.device}: train it with DistributedDataParallel"
                )
        self._means = [
            (bucket, _mean(compression, ratio, comm, bucket)) for bucket in _buckets(trained, max(1, bucket_bytes))
        ]

    def reduce(self) -> None:
        """Replace every gradient by its mean over the ranks; to be called by all, between ``backward`` and ``step``.

        A parameter that took no part on this rank counts as one with a gradient of zeros.
        """
        for bucket, mean in self._means:
            flat = torch.cat([_gradient(parameter).reshape(-1) for parameter in bucket])
            mean.replace(flat.numpy())
            start = 0
            for parameter in bucket:
                end = start + parameter.numel()
                _gradient(parameter).copy_(flat[start:end].view_as(parameter))
                start = end


class _Mean(ABC):
    """Replaces a flat array by its mean over the ranks."""

    def __init__(self, comm: Communicator) -> None:
        self.comm = comm

    @abstractmethod
    def replace(self, flat: np.ndarray[Any, Any]) -> None: ...


class _Exact(_Mean):
    def replace(self, flat: np.ndarray[Any, Any]) -> None:
        self.comm.Allreduce(IN_PLACE, flat)
        flat /= self.comm.size


class _Half(_Mean):
    """Sends 16 bits a value and adds up 32: each rank sums one part and hands it round (reduce-scatter, all-gather)."""

    def __init__(self, comm: Communicator, kind: torch.dtype, size: int) -> None:
        super().__init__(comm)
        self._kind = kind
        self._left_out = np.zeros(size, np.float32)

    def replace(self, flat: np.ndarray[Any, Any]) -> None:
        flat += self._left_out
        width = -(-flat.size // self.comm.size)
        mine = np.zeros(width * self.comm.size, np.float32)
        mine[: flat.size] = flat
        short = self._shortened(mine)
        self._left_out = (flat - self._widened(short)[: flat.size]).astype(np.float32)
        parts = np.empty_like(short)
        self.comm.Alltoall(short, parts)
        mean = self._widened(parts).reshape(self.comm.size, width).mean(axis=0)
        whole = np.empty_like(short)
        self.comm.Allgather(self._shortened(mean), whole)
        flat[:] = self._widened(whole)[: flat.size]

    def _shortened(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        made: np.ndarray[Any, Any] = torch.from_numpy(values).to(self._kind).view(torch.int16).numpy()
        return made

    def _widened(self, short: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        made: np.ndarray[Any, Any] = torch.from_numpy(short).view(self._kind).float().numpy()
        return made


class _TopK(_Mean):
    """Sends the places and values of the largest only (Aji and Heafield, Sparse Communication for Distributed Gradient
    Descent, 2017)."""

    def __init__(self, comm: Communicator, ratio: float, size: int) -> None:
        super().__init__(comm)
        self._kept = max(1, round(ratio * size))
        self._left_out = np.zeros(size, np.float32)

    def replace(self, flat: np.ndarray[Any, Any]) -> None:
        flat += self._left_out
        places = np.argpartition(np.abs(flat), flat.size - self._kept)[flat.size - self._kept :].astype(np.int32)
        values = flat[places]
        self._left_out[:] = flat
        self._left_out[places] = 0
        all_places = np.empty(self._kept * self.comm.size, np.int32)
        all_values = np.empty(self._kept * self.comm.size, flat.dtype)
        self.comm.Allgather(places, all_places)
        self.comm.Allgather(values, all_values)
        flat[:] = 0
        np.add.at(flat, all_places, all_values / self.comm.size)


def _mean(compression: str | None, ratio: float, comm: Communicator, bucket: list[torch.nn.Parameter]) -> _Mean:
    size = sum(parameter.numel() for parameter in bucket)
    if compression is None:
        return _Exact(comm)
    if compression in ("fp16", "bf16"):
        return _Half(comm, torch.float16 if compression == "fp16" else torch.bfloat16, size)
    if compression == "top-k":
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio must be above 0 and at most 1; got {ratio!r}")
        return _TopK(comm, ratio, size)
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


def _gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
