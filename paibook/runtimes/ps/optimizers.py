"""Server-side optimisers as a table's declaration names them: their numbers, and what they keep beside the weights.

What a step does to a weight is one short function each in ``steps``, with its source; only servers load that.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from paibook.errors import TableError

Array = NDArray[Any]


class Optimizer:
    """What all optimisers have.

    Attributes:
        state: Names of the numbers kept beside each weight; all begin as 0.
        every_row: Whether a step moves rows that were not pushed, too.
    """

    state: ClassVar[tuple[str, ...]] = ()
    every_row: ClassVar[bool] = False

    def numbers(self, step: int) -> tuple[float, ...]:
        """What the function in ``steps`` is given for a table's step number ``step``, counted from 1."""
        return dataclasses.astuple(self)  # type: ignore[call-overload]


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent: ``w -= lr * g``.

    Attributes:
        lr: Learning rate.
    """

    lr: float = 0.01


@dataclass(frozen=True)
class Momentum(Optimizer):
    """Gradient descent with momentum: ``v = momentum * v + g; w -= lr * v``.

    Of a row that is not pushed, the velocity rests until it is.

    Attributes:
        lr: Learning rate.
        momentum: What is kept of the velocity, 0 to 1.
        nesterov: Step by ``g + momentum * v`` instead of ``v``.
    """

    lr: float = 0.01
    momentum: float = 0.9
    nesterov: bool = False
    state: ClassVar[tuple[str, ...]] = ("velocity",)


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """Adagrad: ``a += g**2; w -= lr * g / (sqrt(a) + epsilon)``.

    Attributes:
        lr: Learning rate.
        epsilon: Keeps the first steps finite.
    """

    lr: float = 0.01
    epsilon: float = 1e-10
    state: ClassVar[tuple[str, ...]] = ("squares",)


@dataclass(frozen=True)
class RMSProp(Optimizer):
    """RMSProp: ``a = rho * a + (1 - rho) * g**2; w -= lr * g / (sqrt(a) + epsilon)``.

    Attributes:
        lr: Learning rate.
        rho: What is kept of the squares, 0 to 1.
        epsilon: Keeps small steps finite.
    """

    lr: float = 0.01
    rho: float = 0.99
    epsilon: float = 1e-8
    state: ClassVar[tuple[str, ...]] = ("squares",)

    def numbers(self, step: int) -> tuple[float, ...]:
        """As described there."""
        return self.lr, 1 - self.rho, self.epsilon


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam, for dense tables: a step moves every row, those that were not pushed by their mean gradient so far.

    Attributes:
        lr: Learning rate.
        beta1, beta2: What is kept of the means of gradients and of their squares, 0 to 1.
        epsilon: Keeps small steps finite.
    """

    lr: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    state: ClassVar[tuple[str, ...]] = ("m", "v")
    every_row: ClassVar[bool] = True

    def numbers(self, step: int) -> tuple[float, ...]:
        """As described there."""
        rate = self.lr / (1 - self.beta1**step)
        return rate, 1 - self.beta1, 1 - self.beta2, (1 - self.beta2**step) ** -0.5, self.epsilon


@dataclass(frozen=True)
class LazyAdam(Adam):
    """Adam on pushed rows only; the means of the others rest.

    Where dense Adam would go on moving a row for a while after its last push, this does not. ``t`` counts the steps of
    the shard, not those of a row (as torch's SparseAdam does). For attributes see ``Adam``.
    """

    every_row: ClassVar[bool] = False


@dataclass(frozen=True)
class AdaDelta(Optimizer):
    """AdaDelta: steps as large as the last ones were, in proportion to the gradient's usual size.

    Attributes:
        lr: Multiplies the step; 1 in the paper.
        rho: What is kept of the means of squares, 0 to 1.
        epsilon: Makes the first steps possible.
    """

    lr: float = 1.0
    rho: float = 0.9
    epsilon: float = 1e-6
    state: ClassVar[tuple[str, ...]] = ("squares", "deltas")

    def numbers(self, step: int) -> tuple[float, ...]:
        """As described there."""
        return self.lr, 1 - self.rho, self.epsilon


@dataclass(frozen=True)
class FTRL(Optimizer):
    """FTRL-Proximal.

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


@dataclass(frozen=True)
class UserUpdate(Optimizer):
    """The cell's own ``update(weight, grad)``, which returns the new weight.

    Attributes:
        update: The function.
    """

    update: Callable[[Array, Array], Any]

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


BY_NAME: dict[str, type[Optimizer]] = {
    kind.__name__: kind for kind in (SGD, Momentum, Adagrad, RMSProp, Adam, LazyAdam, AdaDelta, FTRL)
}

_SHARES = ("momentum", "rho", "beta1", "beta2")


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
        if name == "nesterov":
            values[name] = bool(value)
            continue
        is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value):
            raise TableError(f"{type(optimizer).__name__}({name}=...) takes a number; got {value!r}")
        values[name] = float(value)
        if name in _SHARES and not 0 <= value < 1:
            raise TableError(f"{type(optimizer).__name__}({name}=...) takes a number from 0 to below 1; got {value!r}")
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
