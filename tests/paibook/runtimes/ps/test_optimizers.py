"""Optimisers against independent implementations of their papers, and against torch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import paibook as pai
from paibook.errors import TableError
from paibook.runtimes.ps import optimizers, steps
from paibook.runtimes.ps.optimizers import (
    FTRL,
    SGD,
    AdaDelta,
    Adagrad,
    Adam,
    LazyAdam,
    Momentum,
    Optimizer,
    RMSProp,
    UserUpdate,
)
from paibook.runtimes.ps.shards import TableSpec
from paibook.runtimes.ps.sparse import SparseTable
from paibook.runtimes.ps.tables import DenseTable

rng = np.random.default_rng(0)


def dense(optimizer: Any, weight: np.ndarray, dtype: str = "float64") -> DenseTable:
    """A whole table that begins as ``weight``."""
    table = DenseTable(TableSpec.declare("w", weight.shape, None, False, dtype, optimizer, 0.0), None, 0, 1)
    table.load({**table.dump(), "weights": weight.astype(dtype)})
    return table


@pytest.mark.parametrize(("ours", "name", "options"), [
    (SGD(lr=0.1), "SGD", {"lr": 0.1}),
    (Momentum(lr=0.1, momentum=0.8), "SGD", {"lr": 0.1, "momentum": 0.8}),
    (Momentum(lr=0.1, momentum=0.8, nesterov=True), "SGD", {"lr": 0.1, "momentum": 0.8, "nesterov": True}),
    (Adagrad(lr=0.1, epsilon=1e-10), "Adagrad", {"lr": 0.1, "eps": 1e-10}),
    (RMSProp(lr=0.1, rho=0.8, epsilon=1e-8), "RMSprop", {"lr": 0.1, "alpha": 0.8, "eps": 1e-8}),
    (Adam(lr=0.1, beta1=0.8, beta2=0.95), "Adam", {"lr": 0.1, "betas": (0.8, 0.95)}),
    (AdaDelta(lr=0.9, rho=0.8), "Adadelta", {"lr": 0.9, "rho": 0.8}),
])  # fmt: skip
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_same_steps_as_torch(ours: Optimizer, name: str, options: dict[str, float], dtype: str) -> None:
    torch = pytest.importorskip("torch")
    weight = rng.normal(size=(4, 3))
    theirs = torch.nn.Parameter(torch.tensor(weight))
    optimizer = getattr(torch.optim, name)([theirs], **options)
    table = dense(ours, weight, dtype)
    for _ in range(7):
        gradient = rng.normal(size=weight.shape)
        theirs.grad = torch.tensor(gradient)
        optimizer.step()
        table.apply(None, gradient.astype(dtype))
    assert np.allclose(table.read(None, True), theirs.detach().numpy(), rtol=1e-12 if dtype == "float64" else 1e-4)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_lazy_adam_is_torchs_sparse_adam_and_adam_moves_every_row() -> None:
    torch = pytest.importorskip("torch")
    weight = rng.normal(size=(6, 2))
    sparsely, densely = (torch.nn.Parameter(torch.tensor(weight)) for _ in range(2))
    lazy = torch.optim.SparseAdam([sparsely], lr=0.1)
    eager = torch.optim.Adam([densely], lr=0.1)
    tables = [dense(LazyAdam(lr=0.1), weight), dense(Adam(lr=0.1), weight)]
    for _ in range(6):
        rows, gradient = rng.integers(0, 6, 4), rng.normal(size=(4, 2))
        sparsely.grad = torch.sparse_coo_tensor(rows[None], gradient, (6, 2))
        densely.grad = sparsely.grad.to_dense()
        lazy.step()
        eager.step()
        for table in tables:
            table.apply(rows, gradient.copy())
    assert np.allclose(tables[0].read(None, True), sparsely.detach().numpy())
    assert np.allclose(tables[1].read(None, True), densely.detach().numpy())
    with pytest.raises(TableError, match="LazyAdam"):
        TableSpec.declare("e", None, 2, True, "float32", Adam(), 0.0)


def test_ftrl_is_algorithm_1_of_the_paper() -> None:
    table = dense(FTRL(alpha=0.2, beta=0.7, l1=0.3, l2=0.1), np.zeros(3))
    w_, z_, n_ = [0.0] * 3, [0.0] * 3, [0.0] * 3
    for _ in range(10):
        gradient = rng.normal(size=3)
        table.apply(None, gradient.copy())
        for i, g in enumerate(gradient):
            sigma = (math.sqrt(n_[i] + g * g) - math.sqrt(n_[i])) / 0.2
            z_[i] += g - sigma * w_[i]
            n_[i] += g * g
            shrunk = 0.0 if abs(z_[i]) <= 0.3 else z_[i] - math.copysign(0.3, z_[i])
            w_[i] = -shrunk / ((0.7 + math.sqrt(n_[i])) / 0.2 + 0.1)
        assert np.allclose(table.read(None, True), w_)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_l1_makes_exact_zeros_and_the_dtype_stays(dtype: str) -> None:
    table = SparseTable(TableSpec.declare("e", None, 3, True, dtype, FTRL(l1=10.0), 0.0), None)
    keys = np.array([5, -7])
    table.apply(keys, np.array([[1, 2, 300], [1, 2, -300]]).astype(dtype))
    rows = table.read(keys, False)
    assert rows.dtype.name == dtype
    assert (rows[:, :2] == 0).all()
    assert (rows[:, 2] != 0).all()
    assert table.dump()["state.z"].dtype == np.float32


@pytest.mark.parametrize("name", list(steps.BY_NAME))
def test_each_function_stands_alone_and_the_loop_agrees_with_it(name: str) -> None:
    optimizer = optimizers.BY_NAME[name]()
    weight, gradients = rng.normal(size=5), rng.normal(size=(3, 5))
    table = dense(optimizer, weight)
    alone = [(w, 0.0, 0.0) for w in weight]
    for step, gradient in enumerate(gradients, 1):
        table.apply(None, gradient.copy())
        alone = [
            steps.BY_NAME[name](w, g, a, b, *optimizer.numbers(step))
            for (w, a, b), g in zip(alone, gradient, strict=True)
        ]
    assert np.allclose(table.read(None, True), [w for w, _, _ in alone])


def test_the_users_update_must_return_the_weight() -> None:
    weight = np.ones(3)
    UserUpdate(lambda w, g: w - 2 * g).step(weight, np.ones(3))
    assert weight.tolist() == [-1, -1, -1]
    with pytest.raises(TableError, match="`return` missing"):
        UserUpdate(lambda w, g: None).step(weight, np.ones(3))
    with pytest.raises(TableError, match=r"shape \(3,\); it returned shape \(2,\)"):
        UserUpdate(lambda w, g: w[:2]).step(weight, np.ones(3))


def test_through_the_wire_and_back() -> None:
    for optimizer in (SGD(0.5), Adagrad(lr=np.float32(0.5)), FTRL(l1=1), Momentum(nesterov=True), LazyAdam()):
        assert optimizers.from_wire(optimizers.to_wire(optimizer), None) == optimizer
    assert optimizers.BY_NAME.keys() == steps.BY_NAME.keys()
    for name, kind in optimizers.BY_NAME.items():
        assert getattr(pai, name) is kind
        assert name in dir(pai)


@pytest.mark.parametrize(
    "wrong", ["sgd", SGD, SGD(lr="fast"), 3, Adam(beta1=1.0), RMSProp(rho=-1), SGD(math.nan), FTRL(l1=math.inf)]
)  # type: ignore[arg-type]
def test_what_is_no_optimizer(wrong: object) -> None:
    with pytest.raises(TableError, match=r"pai\.SGD|takes a number"):
        optimizers.to_wire(wrong)


def test_neither_an_optimizer_nor_an_update_says_what_to_do() -> None:
    with pytest.raises(TableError, match="define update"):
        optimizers.from_wire(None, None)
