"""The right losses, by one process that does the work of both ranks: the gradient of a sum is the sum of gradients."""

from __future__ import annotations

import functools

import numpy

from benchmarks.training_jobs import steps

RANKS = 2


@functools.cache
def losses() -> dict[str, float]:
    """Of each job, after its last step."""
    return {"logistic": _logistic(), "lenet": _lenet()}


def _logistic() -> float:
    data = [steps.logistic_data(rank, steps.ROWS // RANKS) for rank in range(RANKS)]
    w = numpy.zeros(steps.FEATURES, "f4")
    loss = 0.0
    for _ in range(steps.WARM_UP + steps.LOGISTIC_STEPS):
        total = sum(steps.logistic_gradient(x, y, w) for x, y in data)
        w -= 0.5 / steps.ROWS * total[:-1]
        loss = float(total[-1]) / steps.ROWS
    return loss


def _lenet() -> float:
    from torch import cat, nn, optim

    net = steps.lenet_network()
    optimizer = optim.SGD(net.parameters(), lr=0.05)
    data = [steps.lenet_data(rank) for rank in range(RANKS)]
    images, labels = cat([part for part, _ in data]), cat([part for _, part in data])
    first = 0.0
    for _ in range(steps.WARM_UP + steps.LENET_STEPS):
        scores = net(images)
        first = float(nn.functional.cross_entropy(scores[: steps.BATCH], labels[: steps.BATCH]).detach())
        optimizer.zero_grad()
        nn.functional.cross_entropy(scores, labels).backward()
        optimizer.step()
    return first
