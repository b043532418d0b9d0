"""torch.distributed with gloo under ``torchrun``: ``dist.send`` and ``dist.recv``; rank 0 serves."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from benchmarks.ps_jobs import messages, work

if __name__ == "__main__":
    dist.init_process_group("gloo")
    peer = 1 - dist.get_rank()

    def send(array: Any) -> None:
        dist.send(torch.from_numpy(array), peer)

    def receive(array: Any) -> None:
        dist.recv(torch.from_numpy(array), peer)

    if dist.get_rank() == 0:
        messages.serve(send, receive)
    else:
        work.write(messages.measure(send, receive))
    dist.barrier()
    dist.destroy_process_group()
