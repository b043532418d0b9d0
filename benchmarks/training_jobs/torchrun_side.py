"""Bare torchrun: ``torchrun --nproc-per-node 2 -m benchmarks.training_jobs.torchrun_side FILE``."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from benchmarks.training_jobs import steps

if __name__ == "__main__":
    dist.init_process_group("gloo")

    def add_up(array: Any) -> None:
        dist.all_reduce(torch.from_numpy(array))

    found = {"logistic": steps.logistic(dist.get_rank(), dist.get_world_size(), add_up), "lenet": steps.lenet()}
    if dist.get_rank() == 0:
        steps.write(found)
    dist.barrier()  # gloo aborts a rank whose peer leaves before it
    dist.destroy_process_group()
