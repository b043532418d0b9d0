"""Training of torch modules on ranks that are threads; ``test_on_cluster`` has processes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paibook.data.shards import Shard
from paibook.errors import DataError

torch = pytest.importorskip("torch")

from paibook.algorithms.estimators.ddp import fit  # noqa: E402

GENERATOR = np.random.default_rng(4)
X = GENERATOR.normal(size=(48, 3)).astype(np.float32)
Y = (X @ [1, -1, 2] > 0).astype(np.float32)[:, None]
LOSS = torch.nn.functional.binary_cross_entropy_with_logits


def model(seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    made = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    return made


def sgd(parameters: Any) -> Any:
    return torch.optim.SGD(parameters, lr=0.5)


def numbers(trained: Any) -> np.ndarray:
    return np.concatenate([parameter.detach().numpy().ravel() for parameter in trained.parameters()])


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("form", ["arrays", "dataset", "shard"])
def test_ranks_train_as_one_does_on_all_samples(on_ranks: Any, size: int, form: str) -> None:
    expected = model()
    rule = sgd(expected.parameters())
    for _ in range(10):
        rule.zero_grad()
        LOSS(expected(torch.from_numpy(X)), torch.from_numpy(Y)).backward()
        rule.step()
    pair = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    data = {"arrays": (X, Y), "dataset": pair, "shard": Shard((X, Y), 0, 1)}[form]

    def train(comm: Any) -> np.ndarray:
        # Only rank 0 begins where the expected one does.
        own = model(comm.rank)
        return numbers(fit(own, data, LOSS, optimizer=sgd, epochs=10, batch_size=48 // size, comm=comm))

    for found in on_ranks(size, train):
        np.testing.assert_allclose(found, numbers(expected), atol=1e-5)


def test_small_batches_learn(on_ranks: Any) -> None:
    def train(comm: Any) -> Any:
        return fit(model(), (X, Y), LOSS, optimizer=sgd, epochs=40, batch_size=5, comm=comm)

    for trained in on_ranks(2, train):
        assert LOSS(trained(torch.from_numpy(X)), torch.from_numpy(Y)).item() < 0.2


def test_what_cannot_be_trained_on_is_refused(on_ranks: Any) -> None:
    with pytest.raises(DataError, match=r"a tuple \(inputs, target\) of tensors or arrays; got ndarray"):
        fit(model(), X, LOSS)
    with pytest.raises(DataError, match="there are 1 samples, too few for 2 ranks"):
        on_ranks(2, lambda comm: fit(model(), (X[:1], Y[:1]), LOSS, comm=comm))
    with pytest.raises(DataError, match=r"whose numbers of samples are \[48, 47\]"):
        on_ranks(2, lambda comm: fit(model(), (X[comm.rank :], Y[comm.rank :]), LOSS, comm=comm))
