"""Embeddings on the servers against torch's own."""

from __future__ import annotations

import pickle
import sys
from typing import Any

import numpy as np
import pytest

import paibook
from paibook.errors import PaibookError, PlanError, TableError

torch = pytest.importorskip("torch")

TRAIN = """
import torch

def train(ps):
    torch.manual_seed(0)
    made = pai.Embedding(ps, "e", 3, 10, optimizer=pai.SGD(0.1), init=pai.Uniform(-1, 1, seed=2))
    first = made(torch.arange(10)).detach().numpy().copy()
    with torch.no_grad():
        made(torch.tensor([1, 2]))
    for step in ps.clocks(5):
        keys = torch.tensor(batches[step])
        vectors = made(keys)
        assert vectors.shape == (*keys.shape, 3)
        ((vectors ** 2).sum() + vectors[0].sin().sum()).backward()
    return first, made(torch.arange(10)).detach().numpy(), made
"""


def test_gradients_are_torchs(cell: Any) -> None:
    batches = np.random.default_rng(0).integers(0, 10, (5, 4, 3))  # with duplicates
    first, last, served = cell(TRAIN, batches=batches).returned[0]
    theirs = torch.nn.Embedding.from_pretrained(torch.tensor(first.copy()), freeze=False)
    descent = torch.optim.SGD(theirs.parameters(), lr=0.1)
    for batch in torch.tensor(batches):
        descent.zero_grad()
        vectors = theirs(batch)
        ((vectors**2).sum() + vectors[0].sin().sum()).backward()
        descent.step()
    assert np.abs(last - first).max() > 0.1
    np.testing.assert_allclose(last, theirs.weight.detach().numpy(), atol=1e-5)
    with pytest.raises(PlanError, match="'e' has neither a parameter server nor weights"):
        pickle.loads(pickle.dumps(served))(torch.tensor([1]))


def test_any_key_and_a_mean_over_workers(cell: Any) -> None:
    source = """
    import torch

    def train(ps):
        made = pai.Embedding(ps, "e", 2, optimizer=pai.SGD(1.0), init=0.0, scale=1 / ps.world_size)
        for step in ps.clocks(3):
            (made(torch.tensor([[2**60, -5]])) * torch.tensor([1.0, 2.0])).sum().backward()
    """
    keys, rows = cell(source, workers=2).tables["e"]
    assert keys.tolist() == [-5, 2**60]
    assert rows.tolist() == [[-3, -6], [-3, -6]]


def test_inside_a_module_beside_torchs_own_optimizer(cell: Any) -> None:
    source = """
    import torch

    def train(ps):
        torch.manual_seed(0)
        vectors = pai.Embedding(ps, "e", 4, 6, optimizer=pai.Adagrad(0.3))
        net = torch.nn.Sequential(vectors, torch.nn.Flatten(), torch.nn.Linear(8, 1))
        own = torch.optim.SGD(net.parameters(), lr=0.1)
        assert len(list(net.parameters())) == 2
        pairs = torch.cartesian_prod(torch.arange(3), torch.arange(3, 6))
        wanted = ((pairs.sum(1) % 2) == 0).float()
        for step in ps.clocks(150):
            own.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(net(pairs)[:, 0] , wanted)
            loss.backward()
            own.step()
        return loss.item()
    """
    assert cell(source).returned[0] < 0.65


def test_a_key_outside_a_dense_table_is_named(cell: Any) -> None:
    source = """
    import torch

    def train(ps):
        pai.Embedding(ps, "e", 4, 6)(torch.tensor([6]))
    """
    with pytest.raises(TableError, match="table 'e' has rows 0 to 5; got row 6"):
        cell(source)


@pytest.mark.parametrize("name", ["Embedding", "DeepFM"])
def test_without_torch_it_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for module in ("embedding", "deep"):
        monkeypatch.delitem(sys.modules, f"paibook.algorithms.ps.{module}", raising=False)
    with pytest.raises(PaibookError, match=r"install with: pip install 'paibook\[torch\]'"):
        getattr(paibook, name)
