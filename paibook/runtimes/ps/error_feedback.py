"""A worker's filters for one table, and what they have left out of its pushes so far.

What is left out must not be lost, or training ends up elsewhere (Karimireddy et al., "Error feedback fixes SignSGD",
ICML 2019). Of pushes of a whole table the worker keeps it and adds it to the next (error feedback: Seide et al., "1-bit
stochastic gradient descent", 2014; Stich et al., "Sparsified SGD with memory", 2018). Pushes of rows rarely come to the
same rows soon: there ``int8`` rounds at random, which is right on average and keeps nothing, ``fp16`` rounds to the
nearest, and ``top-k`` chooses whole rows; those left out wait for the next push, whatever its keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paibook.comms.compression import check_ratio, largest
from paibook.errors import TableError
from paibook.runtimes.ps.filters import FLAGS, check_dtype, checked_flag, decode, encode
from paibook.runtimes.ps.messages import FP16, TOP_K

Array = NDArray[Any]
_FP16_MOST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class TopKFilter:
    """Sends the largest values of each push only, with error feedback.

    Attributes:
        ratio: Their share, above 0 and at most 1.
    """

    ratio: float = 0.01

    def __post_init__(self) -> None:
        check_ratio(self.ratio)


class Filters:
    """What one worker's requests about one table go through.

    Args:
        table: Its name, for messages.
        compress: ``"fp16"``, ``"int8"``, ``"top-k"``, a ``TopKFilter``, or None.
        compress_pulls: ``"fp16"``, ``"int8"`` or None.
        dtype: The table's.
        seed: Of rounding at random.

    Attributes:
        asked: ``compress`` and ``compress_pulls``.
        pull: The flag of pulls.

    Raises:
        TableError: None of these, or a table that is not float32 or float64.
    """

    def __init__(self, table: str, compress: Any, compress_pulls: Any, dtype: np.dtype[Any], seed: int) -> None:
        self.asked = (TopKFilter() if compress == "top-k" else compress, compress_pulls)
        self._push = None if compress is None else PushFilter(table, compress, dtype, seed)
        self.pull = 0
        if compress_pulls is not None:
            self.pull = checked_flag(table, "compress_pulls", compress_pulls, dtype, ("fp16", "int8"))

    def __str__(self) -> str:
        compress, compress_pulls = self.asked
        return f"compress={compress!r}, compress_pulls={compress_pulls!r}"

    def choose(self, keys: NDArray[np.int64], rows: Array) -> tuple[NDArray[np.int64], Array]:
        """The rows that a push of rows is to send."""
        return (keys, rows) if self._push is None else self._push.choose(keys, rows)

    def rows(self, rows: Array) -> tuple[int, list[Array]]:
        """One server's rows: the request's flag, and what travels after their keys."""
        return (0, [rows]) if self._push is None else self._push.rows(rows)

    def whole(self, server: int, values: Array) -> tuple[int, list[Array]]:
        """One server's part of a whole table: the request's flag, and what travels."""
        return (0, [values]) if self._push is None else self._push.whole(server, values)


class PushFilter:
    """One worker's filter for the pushes to one table, with what it has left out.

    Args:
        table: Its name, for messages.
        compress: ``"fp16"``, ``"int8"``, ``"top-k"`` or a ``TopKFilter``.
        dtype: The table's.
        seed: Of rounding at random.

    Raises:
        TableError: None of these, or a table that is not float32 or float64.
    """

    def __init__(self, table: str, compress: Any, dtype: np.dtype[Any], seed: int) -> None:
        self._table = table
        self._dtype = dtype
        self._ratio = 1.0
        if compress == "top-k":
            compress = TopKFilter()
        if isinstance(compress, TopKFilter):
            self._flag, self._ratio = TOP_K, compress.ratio
        else:
            self._flag = checked_flag(table, "compress", compress, dtype, tuple(FLAGS))
        check_dtype(table, dtype)
        self._chance = np.random.default_rng(seed)
        self._left_out: dict[int, Array] = {}  # by server, of whole pushes
        self._rows = LeftOutRows(dtype)

    def whole(self, server: int, values: Array) -> tuple[int, list[Array]]:
        """One server's part of a whole table: the request's flag, and what travels."""
        wanted = values + self._left_out[server] if server in self._left_out else values
        self._check(wanted)
        sent = encode(self._flag, wanted, None, self._ratio)
        arrived = decode(self._flag, sent, wanted.size, self._dtype).reshape(wanted.shape)
        with np.errstate(invalid="ignore"):
            left = wanted - arrived
        left[~np.isfinite(left)] = 0  # infinities and NaN are sent, and not again
        self._left_out[server] = left
        return self._flag, sent

    def choose(self, keys: NDArray[np.int64], values: Array) -> tuple[NDArray[np.int64], Array]:
        """The rows that are to be sent, of those pushed and those left out before."""
        return self._rows.choose(keys, values, self._ratio) if self._flag == TOP_K else (keys, values)

    def rows(self, values: Array) -> tuple[int, list[Array]]:
        """Chosen rows: the request's flag, and what travels after their keys."""
        if self._flag == TOP_K:
            return 0, [values]
        self._check(values)
        return self._flag, encode(self._flag, values, self._chance)

    def _check(self, values: Array) -> None:
        if self._flag != FP16 or not values.size:
            return
        most = max(float(values.max()), -float(values.min()))
        if _FP16_MOST < most < np.inf:
            raise TableError(
                f"table {self._table!r}: compress='fp16' carries values up to {_FP16_MOST:.0f}; got a gradient of "
                f"{most:.4g}; scale it, or use compress='int8'"
            )


class LeftOutRows:
    """Rows of gradients that were not sent, by key in ascending order."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.keys = np.empty(0, np.int64)
        self.rows = np.empty((0, 1), dtype)

    def choose(self, keys: NDArray[np.int64], rows: Array, ratio: float) -> tuple[NDArray[np.int64], Array]:
        """Take the rows of largest norm out of these and those left out before: ``ratio`` of as many as there are
        ``keys``, and whatever holds NaN or infinities. The sum of all rows, chosen and left out, is what it was."""
        if not len(keys):
            return keys, rows
        flat = rows.reshape(len(keys), -1)
        mine = self.rows if len(self.keys) else flat[:0]
        union, places = np.unique(np.concatenate([self.keys, keys]), return_inverse=True)
        total = np.zeros((len(union), flat.shape[1]), flat.dtype)
        total[places[: len(mine)]] = mine
        np.add.at(total, places[len(mine) :], flat)
        norms = np.einsum("ij,ij->i", total, total)
        chosen = np.zeros(len(union), bool)
        wild = ~np.isfinite(norms)
        chosen[largest(np.where(wild, 0, norms), min(1.0, ratio * len(keys) / len(union)))] = True
        chosen |= wild  # all go, and the server says what becomes of NaN
        left = ~chosen & total.any(axis=1)
        self.keys, self.rows = union[left], total[left]
        return union[chosen], total[chosen].reshape(-1, *rows.shape[1:])
