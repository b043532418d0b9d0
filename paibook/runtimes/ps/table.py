"""A table as the worker sees it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paibook.comms.wire import Header
from paibook.errors import TableError
from paibook.runtimes.ps.links import Links, Request
from paibook.runtimes.ps.messages import WHOLE, Op
from paibook.runtimes.ps.shards import TableSpec, exceed, hash_texts, owners, row_ranges, split


@dataclass(frozen=True)
class Ticket:
    """A push on its way: (partition, its number there) for each partition it went to."""

    pushes: tuple[tuple[int, int], ...]


class Table:
    """A table on the servers.

    Attributes:
        name: As declared.
        shape: Of the whole when dense; (width,) when sparse.
        dtype: Of its elements.
        staleness: How many clocks the slowest worker was behind this one at the last pull (0 or less: none).
    """

    def __init__(self, links: Links, spec: TableSpec, number: int) -> None:
        self._links = links
        self._spec = spec
        self._partitions = links.partitions
        self._first_shard = number * links.partitions
        self._ranges = [] if spec.sparse else row_ranges(spec.shape[0], links.partitions)
        self._starts = np.array([r.start for r in self._ranges], np.int64)
        self.name, self.shape, self.dtype = spec.name, spec.shape, np.dtype(spec.dtype)
        self.staleness = 0

    def __repr__(self) -> str:
        kind = f"sparse, width={self.shape[0]}" if self._spec.sparse else f"shape={self.shape}"
        return f"<table {self.name!r} {kind}, {self.dtype}, {self._partitions} partitions>"

    def pull(self, keys: Any = None) -> NDArray[Any]:
        """Weights: all of a dense table, or the rows of ``keys`` (integers, shape (n,)) in their order.

        Raises:
            TableError: Keys that are no integers, or no rows of the table.
        """
        if keys is None:
            return self._pull_whole()
        rows = self._rows(keys)
        out = np.empty((len(rows), *self._spec.row_shape), self.dtype)
        requests, places = [], []
        for partition, where, local in self._split(rows):
            into = out if isinstance(where, slice) else np.empty((len(local), *self._spec.row_shape), self.dtype)
            header = Header(Op.PULL, 0, self._first_shard + partition, keys=len(local), clock=self._links.clock)
            requests.append(Request(header, (local,), partition, into))
            places.append(where)
        self._pull(requests)
        for where, request in zip(places, requests, strict=True):
            if request.into is not out:
                out[where] = request.into
        return out

    def push(self, *args: Any) -> Ticket:
        """Send gradients: ``push(grad)`` for a whole dense table, ``push(keys, grads)`` for rows; equal keys add up.

        Raises:
            TableError: A gradient of the wrong shape or dtype, or keys as in ``pull``.
        """
        if len(args) == 1:
            return self._push_whole(args[0])
        if len(args) != 2:
            raise TableError(f"table {self.name!r}: push takes (grad) or (keys, grads); got {len(args)} arguments")
        rows = self._rows(args[0])
        gradient = self._gradient(args[1], (len(rows), *self._spec.row_shape))
        pushes = []
        for partition, where, local in self._split(rows):
            header = Header(Op.PUSH, 0, self._first_shard + partition, keys=len(local), clock=self._links.clock)
            shared = isinstance(where, slice)
            part = np.ascontiguousarray(gradient[where])
            pushes.append((partition, self._links.push(partition, header, (local, part), shared)))
        return Ticket(tuple(pushes))

    def wait(self, ticket: Ticket) -> None:
        """Block until a push is where it has to be: on the server, and on those that hold its copies."""
        self._links.wait_for(ticket.pushes)
        self._check()

    def _pull_whole(self) -> NDArray[Any]:
        self._needs_dense("pull() without keys")
        out = np.empty(self.shape, self.dtype)
        requests = []
        for partition, rows in enumerate(self._ranges):
            header = Header(Op.PULL, WHOLE, self._first_shard + partition, clock=self._links.clock)
            requests.append(Request(header, (), partition, out[rows.start : rows.stop]))
        self._pull(requests)
        return out

    def _pull(self, requests: list[Request]) -> None:
        self._links.ask(requests)
        self._check()
        for request in requests:
            assert request.answer is not None
            self.staleness = self._links.clock - request.answer.clock

    def _push_whole(self, value: Any) -> Ticket:
        self._needs_dense("push(grad) without keys")
        gradient = self._gradient(value, self.shape)
        pushes = []
        for partition, rows in enumerate(self._ranges):
            header = Header(Op.PUSH, WHOLE, self._first_shard + partition, clock=self._links.clock)
            part = gradient[rows.start : rows.stop]
            pushes.append((partition, self._links.push(partition, header, (part,), shared=True)))
        return Ticket(tuple(pushes))

    def _check(self) -> None:
        if self._links.refusals:
            refusal = self._links.refusals[0]
            self._links.refusals.clear()
            raise TableError(refusal)

    def _split(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, Any, NDArray[np.int64]]]:
        """For each partition concerned: positions in ``rows``, and the keys as that partition counts them."""
        if self._partitions == 1:
            if len(rows):
                yield 0, slice(None), rows
            return
        if self._spec.sparse:
            owner = owners(rows, self._partitions)
        else:
            # Rightmost start not above the row; empty ranges at the front share a start, hence "right".
            owner = np.searchsorted(self._starts, rows, side="right").astype(np.int64) - 1
        for partition, where in split(owner, self._partitions):
            local = rows[where] if self._spec.sparse else rows[where] - self._starts[partition]
            yield partition, where, local

    def _rows(self, keys: Any) -> NDArray[np.int64]:
        array = np.asarray(keys)
        if array.dtype.kind in "OUT" and self._spec.sparse:
            array = hash_texts(array)
        if array.size == 0:
            array = array.astype(np.int64)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise TableError(
                f"table {self.name!r}: keys must be integers in one dimension; got {array.dtype} of shape {array.shape}"
            )
        if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
            raise TableError(f"table {self.name!r}: keys must fit int64; got {array.max()}")
        rows = np.ascontiguousarray(array, np.int64)
        if not self._spec.sparse and exceed(rows, self.shape[0]):
            wrong = rows[(rows < 0) | (rows >= self.shape[0])][0]
            raise TableError(f"table {self.name!r} has rows 0 to {self.shape[0] - 1}; got row {wrong}")
        return rows

    def _gradient(self, value: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        array = np.asarray(value)
        if not np.can_cast(array.dtype, self.dtype, "same_kind") and not (
            self.dtype.name == "bfloat16" and array.dtype.kind == "f"  # no subtype of NumPy's floating
        ):
            raise TableError(f"table {self.name!r} holds {self.dtype}; got a gradient of {array.dtype}")
        if array.shape != shape and not (self.shape == (1,) and self._spec.sparse and array.shape == shape[:1]):
            raise TableError(f"table {self.name!r} expects a gradient of shape {shape}; got {array.shape}")
        return np.ascontiguousarray(array, self.dtype).reshape(shape)

    def _needs_dense(self, call: str) -> None:
        if self._spec.sparse:
            raise TableError(f"table {self.name!r} is sparse: {call} would mean every possible key; give the keys")
