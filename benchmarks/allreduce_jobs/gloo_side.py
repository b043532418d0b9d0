"""torch.distributed with gloo: ``torchrun --nproc-per-node 2 -m benchmarks.allreduce_jobs.gloo_side FILE``."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from benchmarks.allreduce_jobs import timing


def main() -> None:
    """Time it in one group of ranks."""
    dist.init_process_group("gloo")
    tensors: dict[int, Any] = {}  # made once for each array, as a program would

    def add_up(array: Any) -> None:
        tensor = tensors.get(id(array))
        if tensor is None:
            tensors.clear()
            tensor = tensors[id(array)] = torch.from_numpy(array)
        dist.all_reduce(tensor)

    result = timing.found(dist.get_rank(), dist.get_world_size(), add_up)
    if dist.get_rank() == 0:
        timing.write(result)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
