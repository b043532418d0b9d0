"""Initial weights, as pure functions of a row's number or key: the same however many servers hold the table."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from paibook.errors import TableError


@dataclass(frozen=True)
class Constant:
    """Every weight is ``value``."""

    value: float = 0.0

    def fill(self, rows: NDArray[np.int64], width: int, dtype: DTypeLike) -> NDArray[Any]:
        """Weights of ``rows``, of shape (len(rows), width)."""
        return np.full((len(rows), width), self.value, dtype)


@dataclass(frozen=True)
class Uniform:
    """Weights drawn from [low, high)."""

    low: float = -0.05
    high: float = 0.05
    seed: int = 0

    def fill(self, rows: NDArray[np.int64], width: int, dtype: DTypeLike) -> NDArray[Any]:
        """Weights of ``rows``, of shape (len(rows), width)."""
        return (self.low + (self.high - self.low) * _uniform(rows, width, self.seed)).astype(dtype)


@dataclass(frozen=True)
class Normal:
    """Weights drawn from a normal distribution of mean 0 (Box and Muller, 1958)."""

    scale: float = 0.01
    seed: int = 0

    def fill(self, rows: NDArray[np.int64], width: int, dtype: DTypeLike) -> NDArray[Any]:
        """Weights of ``rows``, of shape (len(rows), width)."""
        radius = np.sqrt(-2.0 * np.log(1.0 - _uniform(rows, width, 2 * self.seed)))
        return (self.scale * radius * np.cos(2 * np.pi * _uniform(rows, width, 2 * self.seed + 1))).astype(dtype)


Initializer = Constant | Uniform | Normal
BY_NAME: dict[str, type[Constant] | type[Uniform] | type[Normal]] = {k.__name__: k for k in (Constant, Uniform, Normal)}


def to_wire(init: Any) -> dict[str, Any]:
    """What a table's ``init`` says, as a JSON-able value.

    Raises:
        TableError: Neither a number nor one of ours.
    """
    if isinstance(init, (int, float, np.integer, np.floating)) and not isinstance(init, bool):
        init = Constant(float(init))
    if type(init) not in BY_NAME.values():
        raise TableError(f"init takes a number, pai.Uniform(...) or pai.Normal(...); got {init!r}")
    return {"name": type(init).__name__, **dataclasses.asdict(init)}


def from_wire(spec: dict[str, Any]) -> Initializer:
    """Rebuild an initialiser on a server."""
    values = dict(spec)
    return BY_NAME[values.pop("name")](**values)


def splitmix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix 64-bit numbers (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014)."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _uniform(rows: NDArray[np.int64], width: int, seed: int) -> NDArray[np.float64]:
    """Numbers in [0, 1) with 53 random bits each, by (seed, row, column)."""
    stream = splitmix64(np.array([seed], np.int64).view(np.uint64))
    by_row = splitmix64(rows.view(np.uint64) ^ stream)
    columns = np.arange(width, dtype=np.uint64) * np.uint64(0xD1342543DE82EF95)
    bits = splitmix64(by_row[:, None] + columns[None, :]) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53
