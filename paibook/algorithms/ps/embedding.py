"""Torch modules whose weights are on the servers: the forward pass pulls, the backward pass pushes."""

from __future__ import annotations

from typing import Any

import numpy as np

from paibook.algorithms.ps.weights import Weights
from paibook.errors import PaibookError, PlanError
from paibook.runtimes.ps.client import ParameterServer, Table
from paibook.runtimes.ps.initializers import Normal
from paibook.runtimes.ps.optimizers import Adagrad

try:
    import torch
except ImportError as error:
    raise PaibookError("pai.Embedding is a torch module; install with: pip install 'paibook[torch]'") from error


class Embedding(torch.nn.Module):
    """As ``torch.nn.Embedding``, with its rows on the servers and any int64 as a key.

    ``loss.backward()`` pushes the gradient of the loss by each row that ``forward`` pulled, and the table's optimizer
    does the rest: no optimizer of torch's has to know. Under ``torch.no_grad()`` nothing is pushed.

    Args:
        ps: What ``train`` is given; None for a module that only holds weights, as ``load`` gives it.
        name: Of the table; every worker declares it alike.
        embedding_dim: Numbers in a row.
        num_embeddings: Keys are below it, and the table is dense; None: any key, and the table is sparse.
        optimizer: What the servers do with gradients; ``pai.Adagrad(lr=0.05)`` where None.
        init: How rows begin; ``pai.Normal(0.01)`` where None.
        scale: Gradients are multiplied by it. ``1 / ps.world_size`` makes the workers' sum a mean.
    """

    def __init__(
        self,
        ps: ParameterServer | None,
        name: str,
        embedding_dim: int,
        num_embeddings: int | None = None,
        *,
        optimizer: Any = None,
        init: Any = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.name, self.embedding_dim, self.scale = name, embedding_dim, scale
        self.weights: Weights | None = None
        self._table: Table | None = None
        if ps is not None:
            rows: dict[str, Any] = {"shape": (num_embeddings, embedding_dim)}
            if num_embeddings is None:
                rows = {"sparse": True, "width": embedding_dim}
            rule = Adagrad(lr=0.05) if optimizer is None else optimizer
            self._table = ps.table(name, **rows, optimizer=rule, init=Normal(0.01) if init is None else init)

    def forward(self, keys: torch.Tensor) -> torch.Tensor:
        """Rows of ``keys`` (integers of any shape), with one more dimension of ``embedding_dim`` at the end.

        Raises:
            TableError: As ``Table.pull`` and, in the backward pass, ``Table.push``.
        """
        unique, places = np.unique(keys.detach().cpu().numpy(), return_inverse=True)
        rows = torch.from_numpy(self._rows(unique)).to(keys.device)
        if torch.is_grad_enabled() and self._table is not None:
            table, scale = self._table, self.scale
            rows.requires_grad_()
            # Called once in a backward pass, with the sum over all uses of a row.
            rows.register_hook(lambda gradient: _push(table, unique, scale * gradient))
        return rows[torch.from_numpy(places.reshape(keys.shape)).to(keys.device)]

    def load(self, weights: Weights) -> Embedding:
        """Hold these weights instead of asking the servers."""
        self.weights, self._table = weights, None
        return self

    def extra_repr(self) -> str:
        """For torch's ``repr`` of modules."""
        return f"{self.name!r}, {self.embedding_dim}"

    def _rows(self, keys: np.ndarray) -> np.ndarray:
        if self._table is not None:
            return self._table.pull(keys)
        if self.weights is None:
            raise PlanError(f"embedding {self.name!r} has neither a parameter server nor weights")
        return self.weights.take(keys)

    def __getstate__(self) -> dict[str, Any]:
        """Without the connection, which is a worker's own."""
        return {**self.__dict__, "_table": None}


class ServedParameters:
    """The parameters of a module, kept on the servers as what training has added to their first values.

    All workers build the module with the same ``torch.manual_seed``, so that the first values are equal.

    Args:
        ps: What ``train`` is given.
        name: Of the table.
        module: Whose parameters.
        optimizer: What the servers do with gradients.
    """

    def __init__(self, ps: ParameterServer, name: str, module: torch.nn.Module, optimizer: Any) -> None:
        self._module = module
        self._first = flat_parameters(module)
        self._table = ps.table(name, shape=len(self._first), optimizer=optimizer)

    def pull(self) -> np.ndarray:
        """Put the servers' values into the module; returns what training has added."""
        added = self._table.pull()
        torch.nn.utils.vector_to_parameters(self._first + torch.from_numpy(added), self._module.parameters())
        self._module.zero_grad()
        return added

    def push(self, scale: float = 1.0) -> None:
        """Send the gradients that ``backward`` has left, times ``scale``."""
        gradients = [p.grad.reshape(-1) if p.grad is not None else p.new_zeros(p.numel()) for p in self._parameters()]
        self._table.push(scale * torch.cat(gradients).cpu().numpy())

    def _parameters(self) -> list[torch.nn.Parameter]:
        return list(self._module.parameters())


def flat_parameters(module: torch.nn.Module) -> torch.Tensor:
    """A module's parameters in one vector, copied."""
    return torch.nn.utils.parameters_to_vector(module.parameters()).detach().clone()


def _push(table: Table, keys: np.ndarray, gradient: torch.Tensor) -> None:
    table.push(keys, gradient.detach().cpu().numpy())
