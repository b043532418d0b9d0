"""Training with averaged gradients on real ranks: by ``comm``, and by DDP with a hook."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

TRAIN = """
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

torch.manual_seed(0)
X = torch.randn(400, 20)
y = (X @ torch.linspace(-1, 1, 20) > 0).float()
mine = slice(rank, None, world_size)

def trained(way, steps=60):
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(20, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    reducer, model = None, net
    if way in ("exact", "fp16", "bf16", "top-k"):
        reducer = pai.GradientReducer(net.parameters(), comm, 256, None if way == "exact" else way, ratio=0.2)
    else:
        model = DistributedDataParallel(net)
        if way != "ddp":
            model.register_comm_hook(pai.TopKState(float(way)), pai.topk_hook)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    for step in range(steps):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(X[mine])[:, 0], y[mine])
        optimizer.zero_grad()
        loss.backward()
        if reducer is not None:
            reducer.reduce()
        optimizer.step()
    with torch.no_grad():
        whole = torch.nn.functional.binary_cross_entropy_with_logits(net(X)[:, 0], y).item()
    return whole, torch.cat([p.detach().flatten() for p in net.parameters()]).numpy()

dist.init_process_group("gloo")
found = {way: trained(way) for way in ("exact", "fp16", "bf16", "top-k", "ddp", "1.0", "0.2")}
losses = {way: loss for way, (loss, _) in found.items()}
weights = {way: w for way, (_, w) in found.items()}
equal = all(abs(comm.allreduce(w, comm.MAX) - w).max() == 0 for w in weights.values())
dist.destroy_process_group()
"""


def test_compressed_training_reaches_the_same_loss(embedded: Any) -> None:
    pytest.importorskip("torch")
    pulled = embedded.run(TRAIN, pull=("losses", "weights", "equal")).pulled
    assert pulled["equal"]  # every rank has the same weights, to the last bit
    losses, weights = pulled["losses"], pulled["weights"]
    assert abs(weights["exact"] - weights["ddp"]).max() < 1e-4
    assert abs(weights["1.0"] - weights["ddp"]).max() < 1e-4
    assert losses["exact"] < 0.25
    for way in ("fp16", "bf16"):
        assert losses[way] == pytest.approx(losses["exact"], abs=0.01)
    for way in ("top-k", "0.2"):
        assert losses[way] == pytest.approx(losses["exact"], abs=0.08)
