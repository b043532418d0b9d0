"""The steps that are timed, the same code on every side: only who starts the ranks, and who adds up, differs."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy

ROWS, FEATURES = 100_000, 1000
WARM_UP = 5
LOGISTIC_STEPS, LENET_STEPS = 30, 40
BATCH = 64


def logistic(rank: int, world_size: int, add_up: Callable[[Any], None]) -> tuple[float, float]:
    """Full-batch gradient descent of logistic regression, 100k x 1000 float32, a share of the rows on each rank.

    Args:
        add_up: Replaces a float32 array by its sum over the ranks.

    Returns:
        Median seconds of a step, and the last loss, which must be the same on every side.
    """
    x, y = logistic_data(rank, ROWS // world_size)
    w = numpy.zeros(FEATURES, "f4")
    times = []
    loss = 0.0
    for _ in range(WARM_UP + LOGISTIC_STEPS):
        began = time.perf_counter()
        mine = logistic_gradient(x, y, w)
        add_up(mine)
        w -= 0.5 / ROWS * mine[:-1]
        loss = float(mine[-1]) / ROWS
        times.append(time.perf_counter() - began)
    return statistics.median(times[WARM_UP:]), loss


def logistic_data(rank: int, rows: int) -> tuple[Any, Any]:
    """A rank's rows and labels."""
    truth = numpy.random.default_rng(0).normal(size=FEATURES).astype("f4")
    x = numpy.random.default_rng(1 + rank).standard_normal((rows, FEATURES), dtype="f4")
    return x, (x @ truth > 0).astype("f4")


def logistic_gradient(x: Any, y: Any, w: Any) -> Any:
    """The gradient, followed by the log-loss, of some rows."""
    scores = x @ w
    loss = numpy.sum(numpy.logaddexp(0, scores) - y * scores)
    return numpy.append((1 / (1 + numpy.exp(-scores)) - y) @ x, loss).astype("f4")


def lenet() -> tuple[float, float]:
    """LeNet-5 on random 28 x 28 images under DistributedDataParallel, 64 images a rank; the group must be there.

    Returns:
        Median seconds of a step, and the last loss of rank 0.
    """
    from torch import nn, optim

    model = nn.parallel.DistributedDataParallel(lenet_network())
    optimizer = optim.SGD(model.parameters(), lr=0.05)
    images, labels = lenet_data(int(os.environ["RANK"]))
    times = []
    loss = None
    for _ in range(WARM_UP + LENET_STEPS):
        began = time.perf_counter()
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter() - began)
    assert loss is not None
    return statistics.median(times[WARM_UP:]), float(loss.detach())


def lenet_network() -> Any:
    """LeNet-5 (LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998), the same each time."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10)),
    )


def lenet_data(rank: int) -> tuple[Any, Any]:
    """A rank's images and labels."""
    import torch

    torch.manual_seed(1 + rank)
    return torch.randn(BATCH, 1, 28, 28), torch.randint(10, (BATCH,))


def write(found: dict[str, tuple[float, float]]) -> None:
    """Rank 0's results, to the file that the command line names."""
    Path(sys.argv[1]).write_text(json.dumps(found))
