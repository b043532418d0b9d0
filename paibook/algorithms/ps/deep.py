"""Deep classifiers of categories: embeddings and a network, all of whose weights are on the servers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pandas as pd

from paibook.algorithms.estimators.samples import checked_labels, parted
from paibook.algorithms.ps.embedding import Embedding, ServedParameters, flat_parameters
from paibook.algorithms.ps.learner import BinaryClassifier
from paibook.algorithms.ps.rows import dealt
from paibook.algorithms.ps.weights import Weights
from paibook.errors import DataError, PaibookError, PlanError
from paibook.runtimes.ps.client import ParameterServer
from paibook.runtimes.ps.initializers import splitmix64
from paibook.runtimes.ps.optimizers import FTRL, Adagrad

try:
    import torch
except ImportError as error:
    raise PaibookError("DeepFM and WideAndDeep need torch; install with: pip install 'paibook[torch]'") from error

_BLOCK = 4096  # rows predicted at a time


@dataclass(eq=False)
class DeepClassifier(BinaryClassifier):
    """What the two have in common: one category for each field in a row, embeddings, and a network over them.

    Args:
        dim: Numbers in a category's embedding.
        hidden: Units of the network's layers.
        optimizer: What the servers do with gradients of embeddings, the mean over all workers' batches.
        net_optimizer: The same of the network's parameters.
    """

    dim: int = 8
    hidden: Sequence[int] = (32, 16)
    optimizer: Any = field(default_factory=lambda: Adagrad(lr=0.05))
    net_optimizer: Any = field(default_factory=lambda: Adagrad(lr=0.02))

    def fit(self, X: Any, y: Any = None, *, ps: ParameterServer | None = None) -> Any:
        """Learn from this worker's samples; every worker calls it, in ``train(ps)``.

        Args:
            X: A category for each field of a row, whole numbers or texts, ``(n, fields)``: an array or a DataFrame; or
                a pair ``(X, y)``, or a shard of one.
            y: Labels ``(n,)``, or the name of X's column.
            ps: What ``train`` is given.

        Raises:
            DataError: Samples that cannot be meant, or not of two classes.
            PlanError: No ``ps``, or a hyperparameter that cannot be meant.
        """
        ps = self._begin(ps)
        X, y = parted(*dealt(X, y), labelled=True)
        keys = category_keys(X)
        labels = checked_labels(y, len(keys))
        sides = torch.from_numpy(self._sides(labels)).float()
        self.n_fields_ = keys.shape[1]
        embeddings, net = self._embeddings(ps), self._network()
        served = ServedParameters(ps, self._named("net"), net, self.net_optimizer)
        for order in self._steps(ps, len(keys)):
            served.pull()
            odds = self._odds(torch.from_numpy(keys[order]), embeddings, net)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(odds, sides[order])
            loss.backward()  # pushes the gradients of the embeddings
            served.push(1 / ps.world_size)
            self._report(loss.item())
        used = {name: self._keys_of(name, torch.from_numpy(keys)).unique().numpy() for name in embeddings}
        held = {module.name: Weights(module._rows(used[name]), used[name]) for name, module in embeddings.items()}
        self.weights_ = {**held, self._named("net"): Weights(served.pull())}
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Log-odds of the second class, ``(n,)``. A category that was in no sample has an embedding of zeros."""
        keys, net = category_keys(X), self._network_as_learned()
        if keys.shape[1] != self.n_fields_:
            raise DataError(f"X has {keys.shape[1]} fields; the model knows {self.n_fields_}")
        embeddings = self._embeddings(None)
        for name, module in embeddings.items():
            module.load(self._weights(name))
        with torch.no_grad():
            blocks = [keys[start : start + _BLOCK] for start in range(0, len(keys), _BLOCK)]
            odds = [self._odds(torch.from_numpy(block), embeddings, net).numpy() for block in blocks]
        return np.concatenate([np.zeros(0), *odds])

    def _begin(self, ps: ParameterServer | None) -> ParameterServer:
        sizes = [self.dim, *self.hidden]
        if not all(isinstance(size, (int, np.integer)) and size > 0 for size in sizes):
            raise PlanError(f"{type(self).__name__} takes dim and hidden units of 1 or more; got {sizes}")
        return super()._begin(ps)

    def _network(self) -> torch.nn.Module:
        """The network as it begins, the same on every worker."""
        sizes = [self.n_fields_ * self.dim, *self.hidden, 1]
        layers: list[torch.nn.Module] = []
        for wide, narrow in pairwise(sizes):
            layers += [torch.nn.utils.skip_init(torch.nn.Linear, wide, narrow), torch.nn.ReLU()]
        chance = torch.Generator().manual_seed(self.seed)  # its own: workers may be threads, and share torch's
        for linear in layers[::2]:
            torch.nn.init.kaiming_uniform_(linear.weight, nonlinearity="relu", generator=chance)
            torch.nn.init.zeros_(linear.bias)
        return torch.nn.Sequential(*layers[:-1])

    def _network_as_learned(self) -> torch.nn.Module:
        added = torch.from_numpy(np.array(self._weights("net").rows))
        net = self._network()
        torch.nn.utils.vector_to_parameters(flat_parameters(net) + added, net.parameters())
        return net

    def _table_names(self) -> list[str]:
        return [module.name for module in self._embeddings(None).values()] + [self._named("net")]

    def _embeddings(self, ps: ParameterServer | None) -> dict[str, Embedding]:
        """The tables of embeddings, by name."""
        raise NotImplementedError

    def _keys_of(self, name: str, keys: torch.Tensor) -> torch.Tensor:
        """The keys that rows of categories ``(n, fields)`` look up in a table."""
        return keys

    def _odds(self, keys: torch.Tensor, embeddings: dict[str, Embedding], net: torch.nn.Module) -> torch.Tensor:
        """Log-odds of rows of categories, ``(n,)``."""
        raise NotImplementedError


@dataclass(eq=False)
class DeepFM(DeepClassifier):
    """DeepFM (Guo et al., IJCAI 2017): a factorisation machine and a network that share their embeddings."""

    def _embeddings(self, ps: ParameterServer | None) -> dict[str, Embedding]:
        scale = 1.0 if ps is None else 1 / ps.world_size
        name = self._named("embeddings")
        return {"embeddings": Embedding(ps, name, 1 + self.dim, optimizer=self.optimizer, scale=scale)}

    def _odds(self, keys: torch.Tensor, embeddings: dict[str, Embedding], net: torch.nn.Module) -> torch.Tensor:
        rows = embeddings["embeddings"](keys)
        linear, factors = rows[..., 0].sum(1), rows[..., 1:]
        pairs = (factors.sum(1) ** 2 - (factors**2).sum(1)).sum(1) / 2
        return linear + pairs + net(factors.flatten(1))[:, 0]


@dataclass(eq=False)
class WideAndDeep(DeepClassifier):
    """Wide & Deep (Cheng et al., 2016): a linear model of categories and crosses of them, and a network.

    Args:
        crosses: Pairs of fields whose categories together are a feature too; all pairs where None.
        wide_optimizer: What the servers do with gradients of the linear part.
    """

    crosses: Sequence[tuple[int, int]] | None = None
    wide_optimizer: Any = field(default_factory=lambda: FTRL(alpha=0.1, l1=1e-4))

    def _embeddings(self, ps: ParameterServer | None) -> dict[str, Embedding]:
        scale = 1.0 if ps is None else 1 / ps.world_size
        wide = Embedding(ps, self._named("wide"), 1, optimizer=self.wide_optimizer, init=0.0, scale=scale)
        deep = Embedding(ps, self._named("deep"), self.dim, optimizer=self.optimizer, scale=scale)
        return {"wide": wide, "deep": deep}

    def _keys_of(self, name: str, keys: torch.Tensor) -> torch.Tensor:
        if name == "deep":
            return keys
        numbers = keys.numpy().view(np.uint64)
        pairs = combinations(range(keys.shape[1]), 2) if self.crosses is None else self.crosses
        crossed = [splitmix64(splitmix64(numbers[:, i]) ^ numbers[:, j]).view(np.int64) for i, j in pairs]
        return torch.from_numpy(np.column_stack([keys.numpy(), *crossed]))

    def _odds(self, keys: torch.Tensor, embeddings: dict[str, Embedding], net: torch.nn.Module) -> torch.Tensor:
        wide = embeddings["wide"](self._keys_of("wide", keys))[..., 0].sum(1)
        return wide + net(embeddings["deep"](keys).flatten(1))[:, 0]


def category_keys(X: Any) -> np.ndarray:
    """A key for each category of each field, the same in every process: 64 bits of its hash, ``(n, fields)``.

    Raises:
        DataError: Not whole numbers or texts, or none at all.
    """
    columns = X if isinstance(X, pd.DataFrame) else pd.DataFrame(X if hasattr(X, "shape") else list(X))
    if columns.shape[1] == 0:
        raise DataError(f"X must have a category for each field, (n, fields); its shape is {columns.shape}")
    return np.column_stack([_hashed(columns.iloc[:, field], field) for field in range(columns.shape[1])])


def _hashed(column: Any, field: int) -> np.ndarray:
    if column.isna().any():
        raise DataError(f"field {field} has missing categories; name them, as in X.fillna('?')")
    kind = pd.api.types.infer_dtype(column, skipna=False)
    if kind in ("integer", "boolean"):
        values: Any = column.to_numpy(np.int64)
    elif kind in ("string", "categorical"):
        values = np.array([str(value) for value in column], dtype=object)
    else:
        raise DataError(f"categories are whole numbers or texts; field {field} holds {kind} values; cut them into bins")
    hashes: np.ndarray = pd.util.hash_array(values, categorize=False)
    return splitmix64(hashes + np.uint64(field)).view(np.int64)
