"""Training torch modules on all ranks' shards, by DistributedDataParallel (Li et al., 2020)."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from paibook.comms.communicator import Communicator
from paibook.comms.positions import group, position
from paibook.data.shards import Shard
from paibook.errors import DataError, PaibookError
from paibook.metrics import log

try:
    import torch
    import torch.distributed as dist
    from torch.utils.data import DataLoader, Dataset

    from paibook.comms import process_groups
except ImportError as error:
    raise PaibookError("pai.fit trains torch modules; install with: pip install 'paibook[torch]'") from error

Average = Callable[[], None]
# NCCL's groups: dropping the last reference joins threads with the interpreter's lock held, and may wait for ever.
_ended: list[Any] = []
_PROCESS = uuid.uuid4().hex  # equal on ranks that are threads of one process


def fit(
    model: Any,
    data: Any,
    loss: Callable[..., Any],
    *,
    optimizer: Callable[..., Any] = torch.optim.Adam,
    epochs: int = 1,
    batch_size: int = 32,
    seed: int = 0,
    comm: Communicator | None = None,
) -> Any:
    """Train a torch module on all ranks; all ranks call it, and end with the same parameters.

    In each epoch the samples are dealt out anew, as many to each rank (fewer than ``size`` are left out). Gradients are
    the mean over the ranks' batches. Ranks that are processes train by DistributedDataParallel, in the process group
    that the cell has made, or in one of their own; ranks that are threads average their gradients through ``comm``.

    Args:
        model: The module, trained where its parameters are; rank 0's parameters are what all begin with.
        data: A map-style ``Dataset`` of ``(*inputs, target)``, a tuple of tensors or arrays ``(*inputs, target)`` of
            equal length, or a ``pai.shard`` of one; equal on all ranks.
        loss: ``loss(model(*inputs), target)``, the mean over a batch.
        optimizer: Makes one of the parameters: ``lambda p: torch.optim.SGD(p, lr=0.1)``.
        epochs: Passes over the data.
        batch_size: Samples of a step on each rank.
        seed: Of the shuffling.
        comm: The ranks; the running cell's.

    Returns:
        The module. Each rank's loss is logged, step by step.

    Raises:
        DataError: Fewer samples than ranks, or data that are no pairs.
    """
    comm = group(comm)
    dealt = _dealt(data, comm, seed)
    device = next(model.parameters()).device
    model.train()
    step = 0
    with _parallel(model, comm, device) as (replica, average):
        rule = optimizer(model.parameters())
        for epoch in range(epochs):
            for *inputs, target in _batches(dealt.epoch(epoch), batch_size):
                rule.zero_grad()
                value = loss(replica(*(part.to(device) for part in inputs)), target.to(device))
                value.backward()
                average()
                rule.step()
                step += 1
                if position().comm is not None:
                    log(step=step, loss=value.detach())
    return model


def _dealt(data: Any, comm: Communicator, seed: int) -> Shard:
    if isinstance(data, Shard):
        data, seed = data.source, data.seed
    if not isinstance(data, Dataset):
        if not isinstance(data, tuple) or len(data) < 2:
            kind = type(data).__name__
            raise DataError(f"fit takes a Dataset, or a tuple (inputs, target) of tensors or arrays; got {kind}")
        data = tuple(torch.as_tensor(part) for part in data)
    dealt = Shard(data, comm.rank, comm.size, equal=True, seed=seed)
    totals = comm.allgather(dealt.total)
    if len(set(totals)) > 1:
        raise DataError(f"fit deals out the same data on all ranks, whose numbers of samples are {totals}")
    if not len(dealt):
        raise DataError(f"there are {dealt.total} samples, too few for {comm.size} ranks")
    return dealt


def _batches(part: Any, size: int) -> Iterator[Any]:
    if not isinstance(part, tuple):
        return iter(DataLoader(part, size))
    return (tuple(tensor[start : start + size] for tensor in part) for start in range(0, len(part[0]), size))


@contextmanager
def _parallel(model: Any, comm: Communicator, device: Any) -> Iterator[tuple[Any, Average]]:
    """The module to call in training, and what to call after its ``backward``."""
    if comm.size == 1:
        yield model, lambda: None
    elif len(set(comm.allgather(_PROCESS))) < comm.size:
        _share(model, comm)
        yield model, lambda: _average(model, comm)
    elif dist.is_initialized():  # the cell's own group
        yield torch.nn.parallel.DistributedDataParallel(model), lambda: None
    elif device.type == "cuda":
        with _nccl_group(comm):
            yield torch.nn.parallel.DistributedDataParallel(model), lambda: None
    else:
        with process_groups.lent(comm) as group:
            yield torch.nn.parallel.DistributedDataParallel(model, process_group=group), lambda: None


@contextmanager
def _nccl_group(comm: Communicator) -> Iterator[None]:
    # Under a name of its own: the store remembers the addresses of groups that are gone.
    name = comm.bcast(f"fit-{uuid.uuid4().hex}")
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    dist.init_process_group("nccl", store=dist.PrefixStore(name, store), rank=comm.rank, world_size=comm.size)
    _ended.append(dist.group.WORLD)
    try:
        yield
        comm.Barrier()  # a peer may still be in the last step
    finally:
        dist.destroy_process_group()


def _share(model: Any, comm: Communicator) -> None:
    for tensor in model.state_dict().values():
        shared = tensor.detach().cpu().contiguous()
        comm.Bcast(shared)
        tensor.copy_(shared)


def _average(model: Any, comm: Communicator) -> None:
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients]).cpu()
    comm.Allreduce(comm.IN_PLACE, flat)
    flat /= comm.size
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
