"""Optimisers against independent implementations of their papers, and against torch."""

from __future__ import annotations

import math

import numpy as np
import pytest

import paibook as pai
from paibook.errors import TableError
from paibook.runtimes.ps import optimizers
from paibook.runtimes.ps.optimizers import FTRL, SGD, Adagrad, UserUpdate

rng = np.random.default_rng(0)


@pytest.mark.parametrize(("ours", "name", "options"), [
    (SGD(lr=0.1), "SGD", {"lr": 0.1}),
    (Adagrad(lr=0.1, epsilon=1e-10), "Adagrad", {"lr": 0.1, "eps": 1e-10}),
])  # fmt: skip
def test_same_steps_as_torch(ours: SGD | Adagrad, name: str, options: dict[str, float]) -> None:
    torch = pytest.importorskip("torch")
    weight = rng.normal(size=(4, 3))
    theirs = torch.nn.Parameter(torch.tensor(weight))
    optimizer = getattr(torch.optim, name)([theirs], **options)
    state = [np.zeros_like(weight) for _ in ours.state]
    for _ in range(5):
        gradient = rng.normal(size=weight.shape)
        theirs.grad = torch.tensor(gradient)
        optimizer.step()
        ours.step(weight, gradient, *state)
    assert np.allclose(weight, theirs.detach().numpy(), rtol=1e-12)


def test_ftrl_is_algorithm_1_of_the_paper() -> None:
    ours = FTRL(alpha=0.2, beta=0.7, l1=0.3, l2=0.1)
    weight, z, n = np.zeros(3), np.zeros(3), np.zeros(3)
    w_, z_, n_ = [0.0] * 3, [0.0] * 3, [0.0] * 3
    for _ in range(10):
        gradient = rng.normal(size=3)
        ours.step(weight, gradient, z, n)
        for i, g in enumerate(gradient):
            sigma = (math.sqrt(n_[i] + g * g) - math.sqrt(n_[i])) / 0.2
            z_[i] += g - sigma * w_[i]
            n_[i] += g * g
            shrunk = 0.0 if abs(z_[i]) <= 0.3 else z_[i] - math.copysign(0.3, z_[i])
            w_[i] = -shrunk / ((0.7 + math.sqrt(n_[i])) / 0.2 + 0.1)
        assert np.allclose(weight, w_)
    assert FTRL(l1=100).l1 == 100


def test_l1_makes_exact_zeros_and_float32_stays() -> None:
    weight, z, n = (np.zeros(3, np.float32) for _ in range(3))
    FTRL(l1=10.0).step(weight, np.ones(3, np.float32), z, n)
    assert (weight == 0).all()
    assert z.dtype == weight.dtype == np.float32


def test_the_users_update_must_return_the_weight() -> None:
    weight = np.ones(3)
    UserUpdate(lambda w, g: w - 2 * g).step(weight, np.ones(3))
    assert weight.tolist() == [-1, -1, -1]
    with pytest.raises(TableError, match="`return` missing"):
        UserUpdate(lambda w, g: None).step(weight, np.ones(3))
    with pytest.raises(TableError, match=r"shape \(3,\); it returned shape \(2,\)"):
        UserUpdate(lambda w, g: w[:2]).step(weight, np.ones(3))


def test_through_the_wire_and_back() -> None:
    for optimizer in (SGD(0.5), Adagrad(lr=np.float32(0.5)), FTRL(l1=1)):
        assert optimizers.from_wire(optimizers.to_wire(optimizer), None) == optimizer
    assert pai.SGD is SGD
    assert "FTRL" in dir(pai)


@pytest.mark.parametrize("wrong", ["sgd", SGD, SGD(lr="fast"), 3])  # type: ignore[arg-type]
def test_what_is_no_optimizer(wrong: object) -> None:
    with pytest.raises(TableError, match=r"pai\.SGD|takes a number"):
        optimizers.to_wire(wrong)


def test_neither_an_optimizer_nor_an_update_says_what_to_do() -> None:
    with pytest.raises(TableError, match="define update"):
        optimizers.from_wire(None, None)
