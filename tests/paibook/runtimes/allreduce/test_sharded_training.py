"""Cells of torch's own that shard: FullyShardedDataParallel and DistributedSampler run as they would under torchrun."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow

MODEL = """
import torch, torch.distributed as dist
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
points = torch.randn(64, 3, generator=torch.Generator().manual_seed(1))
labels = (points.sum(1, keepdim=True) > 0).float()
samples = TensorDataset(torch.arange(64), points, labels)

def new_model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))

def train(model, sampler, size):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    seen = []
    for epoch in range(8):
        sampler and sampler.set_epoch(epoch)
        for numbers, x, y in DataLoader(samples, batch_size=size, sampler=sampler):
            seen.append(numbers.tolist())
            optimizer.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(model(x), y).backward()
            optimizer.step()
    return seen
"""

ALONE = "model = new_model(); train(model, None, 64); [p.detach().numpy() for p in model.parameters()]"

SHARDED = """
dist.init_process_group("gloo")
model = new_model()
{wrap}
seen = train(model, DistributedSampler(samples, seed=2), 32)
{gather}
dist.destroy_process_group()
seen, mine, weights
"""

FULLY_SHARD = (
    "from torch.distributed.fsdp import fully_shard\n"
    "from torch.distributed.device_mesh import init_device_mesh\n"
    "fully_shard(model, mesh=init_device_mesh('cpu', (world_size,)))",
    "mine = sum(p.to_local().numel() for p in model.parameters())\n"
    "weights = [p.full_tensor().detach().numpy() for p in model.parameters()]",
)
WRAPPER = (
    "from torch.distributed.fsdp import FullyShardedDataParallel\n"
    "model = FullyShardedDataParallel(model, device_id=torch.device('cpu'), use_orig_params=True)",
    "mine = sum(p.numel() for p in model.parameters())\n"
    "with FullyShardedDataParallel.summon_full_params(model):\n"
    "    weights = [p.detach().clone().numpy() for p in model.parameters()]",
)


@pytest.mark.parametrize(("wrap", "gather"), [FULLY_SHARD, WRAPPER], ids=["fully_shard", "wrapper"])
def test_sharded_training_agrees_with_one_process(embedded: Any, wrap: str, gather: str) -> None:
    embedded.run(MODEL)
    expected = embedded.run(ALONE).values[0]
    answer = embedded.run(SHARDED.format(wrap=wrap, gather=gather))
    whole = sum(weight.size for weight in expected)
    assert sum(answer.values[rank][1] for rank in range(2)) == whole
    assert all(0 < answer.values[rank][1] < whole for rank in range(2))
    for rank in range(2):
        for ours, theirs in zip(answer.values[rank][2], expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    # Each epoch in an order of its own, each sample once.
    epochs = [sorted(one + other) for one, other in zip(answer.values[0][0], answer.values[1][0], strict=True)]
    assert epochs == [list(range(64))] * 8
    assert answer.values[0][0][0] != answer.values[0][0][1]
