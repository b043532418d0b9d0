"""Bare torchrun: ``torchrun --nproc-per-node RANKS -m benchmarks.growth_jobs.torchrun_side FILE``."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from benchmarks.growth_jobs import operations

if __name__ == "__main__":
    dist.init_process_group("gloo")

    def add_up(array: Any) -> None:
        dist.all_reduce(torch.from_numpy(array))

    found = operations.collectives(dist.get_rank(), dist.get_world_size(), dist.barrier, add_up)
    if dist.get_rank() == 0:
        operations.write(found)
    dist.barrier()  # gloo aborts a rank whose peer leaves before it
    dist.destroy_process_group()
