"""A communication hook for DistributedDataParallel: the largest gradients only, with error feedback.

torch itself has hooks that send 16 bits (``fp16_compress_hook``, ``bf16_compress_hook`` in
``torch.distributed.algorithms.ddp_comm_hooks.default_hooks``) and low-rank ones (``PowerSGDState``); this adds the
sparse kind. As with those, the exchange of one bucket overlaps with the computation of the next.
"""

# No postponed annotations: DDP compares the hook's with the classes themselves.

from typing import Any

import torch
import torch.distributed as dist

from paibook.comms.compression import check_ratio, kept_of


class TopKState:
    """What ``topk_hook`` needs, and what it has left out so far.

    Args:
        ratio: The share of a bucket's values that is sent, above 0 and at most 1.
        group: The process group; the default one where None.

    Raises:
        ValueError: No such share.
    """

    def __init__(self, ratio: float = 0.01, group: Any = None) -> None:
        self.ratio = check_ratio(ratio)
        self.group = group
        self._left_out: dict[int, tuple[tuple[int, ...], torch.Tensor]] = {}

    def left_out(self, bucket: dist.GradBucket) -> torch.Tensor:
        """Of one bucket. DDP cuts its buckets anew after the first step; then nothing is carried over."""
        index, gradients = bucket.index(), bucket.buffer()
        parameters = tuple(id(parameter) for parameter in bucket.parameters())
        known, rest = self._left_out.get(index, ((), gradients))
        if known != parameters:
            rest = torch.zeros_like(gradients)
            self._left_out[index] = parameters, rest
        if bucket.is_last():
            self._left_out = {i: kept for i, kept in self._left_out.items() if i <= index}
        return rest


def topk_hook(state: TopKState, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """``model.register_comm_hook(pai.TopKState(0.01), pai.topk_hook)``: average the largest gradients of each rank.

    Aji and Heafield, Sparse Communication for Distributed Gradient Descent, 2017; the rest is added to the next step's
    (Stich et al., Sparsified SGD with Memory, 2018).
    """
    gradients = bucket.buffer()
    left_out = state.left_out(bucket)
    gradients += left_out
    places = gradients.abs().topk(kept_of(gradients.numel(), state.ratio), sorted=False).indices
    values = gradients[places]
    left_out.copy_(gradients)
    left_out[places] = 0
    size = dist.get_world_size(state.group)
    all_places = [torch.empty_like(places) for _ in range(size)]
    all_values = [torch.empty_like(values) for _ in range(size)]
    works = [
        dist.all_gather(all_places, places, group=state.group, async_op=True),
        dist.all_gather(all_values, values, group=state.group, async_op=True),
    ]

    def averaged(done: torch.futures.Future[Any]) -> torch.Tensor:
        done.wait()
        gradients.zero_().index_add_(0, torch.cat(all_places), torch.cat(all_values) / size)
        return gradients

    return torch.futures.collect_all([work.get_future() for work in works]).then(averaged)
