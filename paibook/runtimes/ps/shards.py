"""How a table is cut over the servers: contiguous row ranges when dense, a hash of the key when sparse."""

from __future__ import annotations

import importlib
import math
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from paibook.errors import TableError
from paibook.runtimes.ps import admission, initializers, optimizers
from paibook.runtimes.ps.initializers import splitmix64

_IMPORTING = threading.Lock()  # two threads that first import pandas at once may meet in the middle of it
DTYPES = ("float16", "bfloat16", "float32", "float64", "int32", "int64")


@dataclass(frozen=True)
class TableSpec:
    """A table as declared; the same on every worker and server.

    Attributes:
        name: For messages and for the result.
        shape: Of the whole when dense, (rows, ...); of one row when sparse, (width,).
        dtype: Name of the element type.
        sparse: Rows by int64 key, created on first push.
        optimizer: As ``optimizers.to_wire`` made it, or None for the cell's ``update``.
        init: As ``initializers.to_wire`` made it.
        admit: As ``admission.to_wire`` made it; None admits every key.
        expire_after: Clocks without a push after which a row is deleted, or None.
        max_rows: Rows of all servers together, beyond which those pushed longest ago are deleted, or None.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    sparse: bool
    optimizer: dict[str, Any] | None
    init: dict[str, Any]
    admit: dict[str, Any] | None = None
    expire_after: int | None = None
    max_rows: int | None = None

    @classmethod
    def declare(
        cls,
        name: str,
        shape: Any,
        width: Any,
        sparse: bool,
        dtype: DTypeLike,
        optimizer: Any,
        init: Any,
        admit: Any = None,
        expire_after: Any = None,
        max_rows: Any = None,
        evict: str = "lru",
    ) -> TableSpec:
        """Check what ``ps.table`` was given.

        Raises:
            TableError: Naming the table and the argument.
        """
        if not isinstance(name, str) or not name:
            raise TableError(f"a table's name must be a text, not empty; got {name!r}")
        try:
            if sparse and shape is not None:
                raise TableError("a sparse table has no shape: give width=..., the length of one row")
            if not sparse and width is not None:
                raise TableError("a dense table has no width: give shape=(rows, ...), or sparse=True")
            sizes = _shape(1 if width is None else width, "width") if sparse else _shape(shape, "shape")
            kind = _dtype(dtype)
            if optimizer is not None and kind.startswith("int"):
                raise TableError(
                    f"dtype {kind} needs the cell's own update(weight, grad); optimizers want a float dtype"
                )
            life = _life(sparse, admit, expire_after, max_rows, evict)
            asked = optimizers.to_wire(optimizer)
            if sparse and asked is not None and asked["name"] == "Adam":
                raise TableError(
                    "Adam moves every row at every step, pushed or not; a sparse table takes pai.LazyAdam(...)"
                )
            return cls(name, sizes, kind, sparse, asked, initializers.to_wire(init), *life)
        except TableError as error:
            raise TableError(f"table {name!r}: {error}") from None

    @classmethod
    def from_wire(cls, values: dict[str, Any]) -> TableSpec:
        """Read back what ``to_wire`` made."""
        _dtype(values["dtype"])  # NumPy is told of bfloat16 by that
        return cls(**{**values, "shape": tuple(values["shape"])})

    def to_wire(self) -> dict[str, Any]:
        """As a JSON-able value."""
        return asdict(self)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.shape if self.sparse else self.shape[1:]

    @property
    def width(self) -> int:
        """Elements of one row."""
        return math.prod(self.row_shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.width * np.dtype(self.dtype).itemsize

    def differs_from(self, other: TableSpec) -> str:
        """What a second declaration says otherwise, as in ``shape (3,) instead of (2,)``; empty when nothing."""
        mine, theirs = asdict(self), asdict(other)
        return ", ".join(
            f"{name} {theirs[name]} instead of {mine[name]}" for name in mine if mine[name] != theirs[name]
        )


def row_ranges(rows: int, servers: int) -> list[range]:
    """Contiguous rows of each server, sizes differing by one at most.

    >>> row_ranges(10, 3)
    [range(0, 3), range(3, 6), range(6, 10)]
    """
    return [range(rows * i // servers, rows * (i + 1) // servers) for i in range(servers)]


def exceed(rows: NDArray[np.int64], count: int) -> bool:
    """Whether one of them is no row of ``count``, negative ones included.

    >>> [exceed(np.array(rows, np.int64), 3) for rows in ([], [0, 2], [3], [-1])]
    [False, False, True, True]
    """
    return len(rows) > 0 and bool(rows.view(np.uint64).max() >= count)  # a negative number is a huge one there


def owners(keys: NDArray[np.int64], servers: int) -> NDArray[np.int64]:
    """The server of each key of a sparse table."""
    return (splitmix64(keys.view(np.uint64)) % np.uint64(servers)).astype(np.int64)


def hash_texts(texts: NDArray[Any]) -> NDArray[np.int64]:
    """Keys of texts: a 64-bit hash (SipHash-2-4, as pandas' ``hash_array`` computes it), alike in every process.

    Two of n texts share a key, and so a row, with probability n**2 / 2**65: 1 in 3700 for 100 million texts.
    Whatever holds something else than texts is returned as it is.
    """
    if not all(isinstance(text, str) for text in texts.flat):
        return texts
    with _IMPORTING:
        from pandas.util import hash_array  # slow to import, and few workers need it

    return hash_array(texts.astype(object).ravel(), categorize=False).view(np.int64).reshape(texts.shape)


def split(owner: NDArray[np.int64], servers: int) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """For each server concerned, the positions it owns, in their order."""
    order = np.argsort(owner, kind="stable")
    ends = np.cumsum(np.bincount(owner, minlength=servers))
    for server, (start, end) in enumerate(zip(ends - np.diff(ends, prepend=0), ends, strict=True)):
        if end > start:
            yield server, order[start:end]


def _shape(value: Any, name: str) -> tuple[int, ...]:
    sizes = (value,) if isinstance(value, (int, np.integer)) else value
    if (
        not isinstance(sizes, (tuple, list))
        or not sizes
        or any(isinstance(s, bool) or not isinstance(s, (int, np.integer)) or s < 1 for s in sizes)
        or (name == "width" and len(sizes) != 1)
    ):
        form = (
            "a whole number, 1 or more"
            if name == "width"
            else "whole numbers, 1 or more, such as shape=(rows, columns)"
        )
        raise TableError(f"{name} takes {form}; got {value!r}")
    return tuple(int(s) for s in sizes)


def _life(
    sparse: bool, admit: Any, expire_after: Any, max_rows: Any, evict: str
) -> tuple[dict[str, Any] | None, int | None, int | None]:
    """How rows of a sparse table come and go: ``admit``, ``expire_after`` and ``max_rows``, checked."""
    limits = {"expire_after": expire_after, "max_rows": max_rows}
    for name, value in limits.items():
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1 or not sparse
        ):
            what = "a whole number, 1 or more" if sparse else "nothing: only rows of sparse tables come and go"
            raise TableError(f"{name} takes {what}; got {value!r}")
    if admit is not None and not sparse:
        raise TableError(f"admit takes nothing: only rows of sparse tables come and go; got {admit!r}")
    if evict != "lru":
        raise TableError(f"evict takes 'lru', least recently pushed; got {evict!r}")
    expire_after, max_rows = (None if value is None else int(value) for value in limits.values())
    return admission.to_wire(admit), expire_after, max_rows


def _dtype(value: DTypeLike) -> str:
    if isinstance(value, str) and value == "bfloat16":
        importlib.import_module("ml_dtypes")  # it tells NumPy of the type; few tables need it
    try:
        name = np.dtype(value).name
    except TypeError:
        name = repr(value)
    if name not in DTYPES:
        raise TableError(f"dtype takes {', '.join(DTYPES)}; got {name}")
    return name
