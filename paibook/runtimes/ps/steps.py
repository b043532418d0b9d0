"""The mathematics of the optimisers: one short function each, of one weight; and the loops that run them over rows.

A function is given a weight, its gradient, up to two numbers of state kept beside the weight, and the optimiser's
numbers as ``optimizers`` computes them for this step. It returns the new weight and state. The one loop below compiles
it, for whole dense tables and for pushed rows alike. No literals stand in the functions where float32 would become
float64 by them. Only servers import this module: it loads numba.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import copysign, sqrt
from typing import Any

import numpy as np
from numba.extending import register_jitable
from numpy.typing import NDArray

from paibook.runtimes.ps.jit import jit
from paibook.runtimes.ps.prefetch import AHEAD, prefetch

Stepped = tuple[float, float, float]  # the new weight and its state


def sgd(w: float, g: float, a: float, b: float, lr: float) -> Stepped:
    """Stochastic gradient descent (Robbins and Monro, 1951)."""
    return w - lr * g, a, b


def momentum(w: float, g: float, velocity: float, b: float, lr: float, mu: float, nesterov: float) -> Stepped:
    """Heavy ball (Polyak, 1964); with ``nesterov`` 1 the gradient is looked at ahead (Sutskever et al., ICML 2013)."""
    velocity = mu * velocity + g
    return w - lr * (velocity + nesterov * (g + mu * velocity - velocity)), velocity, b


def adagrad(w: float, g: float, squares: float, b: float, lr: float, epsilon: float) -> Stepped:
    """Adagrad, diagonal (Duchi, Hazan and Singer, JMLR 12, 2011, figure 1)."""
    squares += g * g
    return w - lr * g / (sqrt(squares) + epsilon), squares, b


def rmsprop(w: float, g: float, squares: float, b: float, lr: float, decay: float, epsilon: float) -> Stepped:
    """RMSProp (Tieleman and Hinton, Neural networks for machine learning, lecture 6e, 2012); ``decay`` is 1 - rho."""
    squares += (g * g - squares) * decay
    return w - lr * g / (sqrt(squares) + epsilon), squares, b


def adam(
    w: float, g: float, m: float, v: float, lr: float, decay1: float, decay2: float, scale: float, epsilon: float
) -> Stepped:
    """Adam (Kingma and Ba, ICLR 2015, algorithm 1); the decays are 1 - beta.

    The corrections of the bias are in ``lr``, divided by 1 - beta1^t, and ``scale``, 1 / sqrt(1 - beta2^t).
    """
    m += (g - m) * decay1
    v += (g * g - v) * decay2
    return w - lr * m / (sqrt(v) * scale + epsilon), m, v


def adadelta(w: float, g: float, squares: float, deltas: float, lr: float, decay: float, epsilon: float) -> Stepped:
    """AdaDelta (Zeiler, arXiv:1212.5701, 2012, algorithm 1); ``decay`` is 1 - rho."""
    squares += (g * g - squares) * decay
    delta = g * sqrt(deltas + epsilon) / sqrt(squares + epsilon)
    deltas += (delta * delta - deltas) * decay
    return w - lr * delta, squares, deltas


def ftrl(w: float, g: float, z: float, n: float, alpha: float, beta: float, l1: float, l2: float) -> Stepped:
    """FTRL-Proximal, per coordinate (McMahan et al., "Ad click prediction", KDD 2013, algorithm 1)."""
    grown = n + g * g
    z += g - (sqrt(grown) - sqrt(n)) / alpha * w
    if abs(z) <= l1:
        return 0.0, z, grown
    return (copysign(l1, z) - z) / ((beta + sqrt(grown)) / alpha + l2), z, grown


BY_NAME: dict[str, Callable[..., Stepped]] = {
    "SGD": sgd,
    "Momentum": momentum,
    "Adagrad": adagrad,
    "RMSProp": rmsprop,
    "Adam": adam,
    "LazyAdam": adam,
    "AdaDelta": adadelta,
    "FTRL": ftrl,
}


@cache
def compiled(name: str) -> Callable[..., None]:
    """The loop over rows for an optimiser, compiled when it first meets a dtype, and kept on disk.

    It takes ``(weights, a, b, slots, gradient, numbers)``: arrays of shape (rows, width) for the weights and up to two
    of state (None where there is less), the rows to step (int64, no duplicates; None for all of them), their gradients
    (n, width), and the optimiser's numbers as a tuple of the weights' type.
    """
    # The cache on disk knows the function by its name, so it must stand in this file, whose date guards the cache.
    step = register_jitable(BY_NAME[name])

    @jit
    def over_rows(weights: Any, a: Any, b: Any, slots: Any, gradient: Any, numbers: Any) -> None:
        zero = gradient.dtype.type(0)
        count, width = gradient.shape
        if slots is None:  # as one row, however narrow theirs are
            w_all, g_all = weights.reshape(-1), gradient.reshape(-1)
            a_all, b_all = w_all if a is None else a.reshape(-1), w_all if b is None else b.reshape(-1)
            for i in range(count * width):
                u = zero if a is None else a_all[i]
                v = zero if b is None else b_all[i]
                w, u, v = step(w_all[i], g_all[i], u, v, *numbers)
                w_all[i] = w
                if a is not None:
                    a_all[i] = u
                if b is not None:
                    b_all[i] = v
            return
        for i in range(count):
            row = slots[i]
            if i + AHEAD < count:
                prefetch(weights, slots[i + AHEAD])
                if a is not None:
                    prefetch(a, slots[i + AHEAD])
                if b is not None:
                    prefetch(b, slots[i + AHEAD])
            for j in range(width):
                u = zero if a is None else a[row, j]
                v = zero if b is None else b[row, j]
                w, u, v = step(weights[row, j], gradient[i, j], u, v, *numbers)
                weights[row, j] = w
                if a is not None:
                    a[row, j] = u
                if b is not None:
                    b[row, j] = v

    return over_rows


@jit
def _gather(rows: Any, slots: Any, out: Any) -> None:
    count, width = out.shape
    for i in range(count):
        if i + AHEAD < count and slots[i + AHEAD] >= 0:
            prefetch(rows, slots[i + AHEAD])
        slot = slots[i]
        if slot >= 0:
            j = 0
            while j + 4 <= width:  # by hand: rows are too short for what the compiler would make of the plain loop
                a, b, c, d = rows[slot, j], rows[slot, j + 1], rows[slot, j + 2], rows[slot, j + 3]
                out[i, j], out[i, j + 1], out[i, j + 2], out[i, j + 3] = a, b, c, d
                j += 4
            while j < width:
                out[i, j] = rows[slot, j]
                j += 1


@jit
def sum_duplicates(slots: Any, gradient: Any, marker: Any) -> int:
    """Add up the gradients of equal slots, in place and in their order.

    Args:
        slots: Row numbers, int64, shape (n,); the first ones, without duplicates, are the answer.
        gradient: Shape (n, width); likewise.
        marker: int32, an element for every row; what it holds does not matter.

    Returns:
        How many different slots there are.
    """
    count, width = gradient.shape
    different = 0
    for i in range(count):
        if i + AHEAD < count:
            prefetch(marker, slots[i + AHEAD])
        slot = slots[i]
        place = marker[slot]
        if 0 <= place < different and slots[place] == slot:
            for j in range(width):
                gradient[place, j] += gradient[i, j]
            continue
        marker[slot] = different
        if different != i:
            slots[different] = slot
            for j in range(width):
                gradient[different, j] = gradient[i, j]
        different += 1
    return different


@jit
def add_rows(total: Any, slots: Any, gradient: Any) -> None:
    """``total[slots] += gradient``, duplicates added up, in their order."""
    count, width = gradient.shape
    for i in range(count):
        for j in range(width):
            total[slots[i], j] += gradient[i, j]


@jit
def _wild(bits: Any, exponent: Any) -> bool:
    largest = bits.dtype.type(0)
    for i in range(len(bits)):
        largest = max(largest, bits[i] & exponent)
    return largest == exponent


@jit
def increasing(keys: Any) -> bool:
    """Whether each key is larger than the one before, so that there are no duplicates."""
    falls = 0
    for i in range(1, len(keys)):
        falls += keys[i] <= keys[i - 1]
    return falls == 0


@jit
def _wild_rows(bits: Any, exponent: Any, wild: Any) -> None:
    for i in range(bits.shape[0]):
        largest = bits.dtype.type(0)
        for j in range(bits.shape[1]):
            largest = max(largest, bits[i, j] & exponent)
        if largest == exponent:
            wild[i] = True


_EXPONENTS = {"float16": 0x7C00, "bfloat16": 0x7F80, "float32": 0x7F800000, "float64": 0x7FF0000000000000}


def gather(rows: NDArray[Any], slots: NDArray[np.int64], out: NDArray[Any]) -> None:
    """``out[i] = rows[slots[i]]``; where a slot is negative, ``out`` stays as it is."""
    size = rows.dtype.itemsize
    kind = f"u{size if rows.shape[1] * size % 8 else 8}"  # three kinds to compile, not seven; the widest that fits
    _gather(rows.view(kind), slots, out.view(kind))


def wild_rows(gradient: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Which rows hold NaN or an infinity (IEEE 754: the exponent's bits are all ones); None when none does.

    Args:
        gradient: Shape (n, width), contiguous, of any dtype; integers are never wild.
    """
    exponent = _EXPONENTS.get(gradient.dtype.name)
    if exponent is None:
        return None
    bits = gradient.view(f"u{gradient.dtype.itemsize}")
    largest = bits.dtype.type(exponent)
    if not _wild(bits.reshape(-1), largest):
        return None
    wild = np.zeros(len(gradient), np.bool_)
    _wild_rows(bits, largest, wild)
    return wild
