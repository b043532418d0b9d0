"""Server-side optimisers: what a push does to the weights. Each is one short function over arrays of equal shape.

``step`` changes ``weight`` and its state arrays in place: a whole dense shard, or just the rows that were pushed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from paibook.errors import TableError

Array = NDArray[Any]


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent: ``w -= lr * g``.

    Attributes:
        lr: Learning rate.
    """

    lr: float = 0.01
    state: ClassVar[tuple[str, ...]] = ()

    def step(self, weight: Array, gradient: Array) -> None:
        """One step, in place."""
        weight -= self.lr * gradient


@dataclass(frozen=True)
class Adagrad:
    """Adagrad (Duchi, Hazan and Singer, JMLR 12, 2011): ``a += g**2; w -= lr * g / (sqrt(a) + epsilon)``.

    Attributes:
        lr: Learning rate.
        epsilon: Keeps the first steps finite.
    """

    lr: float = 0.01
    epsilon: float = 1e-10
    state: ClassVar[tuple[str, ...]] = ("squares",)

    def step(self, weight: Array, gradient: Array, squares: Array) -> None:
        """One step, in place."""
        squares += gradient * gradient
        weight -= self.lr * gradient / (np.sqrt(squares) + self.epsilon)


@dataclass(frozen=True)
class FTRL:
    """FTRL-Proximal, per coordinate (McMahan et al., "Ad click prediction", KDD 2013, algorithm 1).

    The weight is a function of ``z``, so a table's ``init`` holds only until its first push.

    Attributes:
        alpha, beta: The learning rate is ``alpha / (beta + sqrt(sum of g**2))``.
        l1, l2: Strengths of regularisation; ``l1`` makes weights exactly zero.
    """

    alpha: float = 0.1
    beta: float = 1.0
    l1: float = 0.0
    l2: float = 0.0
    state: ClassVar[tuple[str, ...]] = ("z", "n")

    def step(self, weight: Array, gradient: Array, z: Array, n: Array) -> None:
        """One step, in place."""
        squares = gradient * gradient
        sigma = (np.sqrt(n + squares) - np.sqrt(n)) / self.alpha
        z += gradient - sigma * weight
        n += squares
        rate = (self.beta + np.sqrt(n)) / self.alpha + self.l2
        weight[...] = np.where(np.abs(z) <= self.l1, 0, -(z - np.sign(z) * self.l1) / rate)


@dataclass(frozen=True)
class UserUpdate:
    """The cell's own ``update(weight, grad)``, which returns the new weight.

    Attributes:
        update: The function.
    """

    update: Callable[[Array, Array], Any]
    state: ClassVar[tuple[str, ...]] = ()

    def step(self, weight: Array, gradient: Array) -> None:
        """Replace the weight by what the function returns.

        Raises:
            TableError: It returned something of another shape.
        """
        new = np.asarray(self.update(weight, gradient))
        if new.shape != weight.shape:
            raise TableError(
                f"update(weight, grad) must return the new weight, an array of shape {weight.shape}; "
                f"it returned {_what(new)}"
            )
        weight[...] = new


Optimizer = SGD | Adagrad | FTRL | UserUpdate
BY_NAME: dict[str, type[SGD] | type[Adagrad] | type[FTRL]] = {kind.__name__: kind for kind in (SGD, Adagrad, FTRL)}


def to_wire(optimizer: Any) -> dict[str, Any] | None:
    """An optimiser as a JSON-able value; None (the cell's ``update``) stays None.

    Raises:
        TableError: Not one of ours, or one whose numbers are not numbers.
    """
    if optimizer is None:
        return None
    if type(optimizer) not in BY_NAME.values():
        raise TableError(
            f"optimizer takes {', '.join(f'pai.{n}(...)' for n in BY_NAME)}, or None for the cell's own "
            f"update(weight, grad); got {optimizer!r}"
        )
    values = dataclasses.asdict(optimizer)
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
            raise TableError(f"{type(optimizer).__name__}({name}=...) takes a number; got {value!r}")
        values[name] = float(value)
    return {"name": type(optimizer).__name__, **values}


def from_wire(spec: dict[str, Any] | None, update: Callable[..., Any] | None) -> Optimizer:
    """Rebuild an optimiser on a server.

    Args:
        spec: As ``to_wire`` made it.
        update: The cell's own function, if it defines one.

    Raises:
        TableError: Neither an optimiser nor an ``update`` function.
    """
    if spec is not None:
        values = dict(spec)
        return BY_NAME[values.pop("name")](**values)
    if update is None:
        raise TableError(
            "it has no optimizer: give one, as in ps.table(..., optimizer=pai.SGD(lr=0.1)), "
            "or define update(weight, grad) in the cell"
        )
    return UserUpdate(update)


def _what(value: Array) -> str:
    return "None; is the `return` missing?" if value.dtype == object and value.shape == () else f"shape {value.shape}"
