"""A server's shards: rows of weights, what the optimiser keeps beside them, and pushes that wait for their clock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paibook.errors import TableError
from paibook.runtimes.ps import initializers, optimizers
from paibook.runtimes.ps.shards import TableSpec, exceed, row_ranges

Array = NDArray[Any]
Slots = NDArray[np.int64]
Push = tuple[Slots | None, Array]  # slots (None: every row) and their gradients


class Shard:
    """Rows in one array and the optimiser's state in arrays beside it; ``lock`` guards all of them.

    Args:
        spec: The table's declaration.
        update: The cell's own ``update(weight, grad)``, if any.
        rows: Rows to make room for.
    """

    def __init__(self, spec: TableSpec, update: Callable[..., Any] | None, rows: int) -> None:
        self.spec = spec
        self.lock = threading.RLock()
        self._optimizer = optimizers.from_wire(spec.optimizer, update)
        self._init = initializers.from_wire(spec.init)
        self._weights = np.empty((rows, *spec.row_shape), spec.dtype)
        self._state = [np.zeros_like(self._weights) for _ in self._optimizer.state]
        self._marker = np.zeros(rows, np.int64)
        self._waiting: dict[int, dict[int, list[Push]]] = {}

    @property
    def rows(self) -> int:
        """Rows held."""
        return len(self._weights)

    def slots(self, keys: Slots) -> Slots:
        """Where the rows of ``keys`` lie."""
        raise NotImplementedError

    def export(self) -> tuple[Slots | None, Array]:
        """The keys (None when dense) and the rows, for the run's result."""
        raise NotImplementedError

    def read(self, keys: Slots | None, stable: bool) -> Array:
        """Weights of ``keys``, or of every row.

        Args:
            stable: Nobody may change the shard before the caller is done, so every row may go without a copy.
        """
        with self.lock:
            if keys is not None:
                slots = self.slots(keys)  # may replace the arrays by larger ones
                return self._weights[slots]
            return self._weights if stable else self._weights.copy()

    def dump(self) -> dict[str, Array]:
        """The complete state as arrays of its own, for a replica or a checkpoint; ``load`` takes them back.

        Returns:
            ``"keys"`` (int64, sparse only), ``"weights"`` (rows, ...), ``"state.<name>"`` for each of the optimiser's
            arrays, and the pushes that wait for their clock: ``"waiting"`` (pushes, 3) with clock, rank and number of
            keys (-1: every row), ``"waiting.keys"`` and ``"waiting.gradients"``, one push's after the other's.
        """
        with self.lock:
            keys, weights = self.export()
            arrays = {} if keys is None else {"keys": keys.copy()}
            arrays["weights"] = weights.copy()
            for name, array in zip(self._optimizer.state, self._state, strict=True):
                arrays[f"state.{name}"] = array[: len(weights)].copy()
            return arrays | self._dump_waiting()

    def load(self, arrays: Mapping[str, Array]) -> None:
        """Become what ``dump`` described; what was here before is forgotten."""
        with self.lock:
            self._place(arrays)
            rows = len(arrays["weights"])
            self._weights[:rows] = arrays["weights"]
            for name, array in zip(self._optimizer.state, self._state, strict=True):
                array[:rows] = arrays[f"state.{name}"]
            self._load_waiting(arrays)

    def _place(self, arrays: Mapping[str, Array]) -> None:
        """Make room for the dumped rows, in their order."""
        raise NotImplementedError

    def _keys_of(self, slots: Slots) -> Slots:
        return slots

    def _dump_waiting(self) -> dict[str, Array]:
        head: list[tuple[int, int, int]] = []
        keys, gradients = [np.empty(0, np.int64)], [np.empty((0, *self.spec.row_shape), self.spec.dtype)]
        for clock, by_rank in sorted(self._waiting.items()):
            for rank, pushes in sorted(by_rank.items()):
                for slots, gradient in pushes:
                    head.append((clock, rank, -1 if slots is None else len(slots)))
                    gradients.append(gradient)
                    if slots is not None:
                        keys.append(self._keys_of(slots))
        return {
            "waiting": np.array(head, np.int64).reshape(-1, 3),
            "waiting.keys": np.concatenate(keys),
            "waiting.gradients": np.concatenate(gradients),
        }

    def _load_waiting(self, arrays: Mapping[str, Array]) -> None:
        self._waiting = {}
        keys, gradients = arrays["waiting.keys"], arrays["waiting.gradients"]
        for clock, rank, count in arrays["waiting"].tolist():
            rows = self.rows if count < 0 else count
            slots = None if count < 0 else keys[:count]
            self.keep(clock, rank, slots, gradients[:rows].copy())
            keys, gradients = keys[max(count, 0) :], gradients[rows:]

    def apply(self, keys: Slots | None, gradient: Array) -> None:
        """Do one push now."""
        with self.lock:
            self._step([(None if keys is None else self.slots(keys), gradient)])

    def keep(self, clock: int, rank: int, keys: Slots | None, gradient: Array) -> None:
        """Hold a push back until its clock is over; owns ``gradient`` from now on."""
        with self.lock:
            pushes = self._waiting.setdefault(clock, {}).setdefault(rank, [])
            if keys is None and pushes and pushes[-1][0] is None:
                pushes[-1][1].__iadd__(gradient)
            else:
                pushes.append((None if keys is None else self.slots(keys), gradient))

    def apply_kept(self, clock: int) -> None:
        """Do the pushes of ``clock`` as one step on their sum, added in rank order so that the result is exact."""
        with self.lock:
            by_rank = self._waiting.pop(clock, {})
            pushes = [push for rank in sorted(by_rank) for push in by_rank[rank]]
            if pushes:
                self._step(pushes)

    def _step(self, pushes: list[Push]) -> None:
        if all(slots is not None for slots, _ in pushes):
            slots = np.concatenate([s for s, _ in pushes if s is not None]) if len(pushes) > 1 else pushes[0][0]
            assert slots is not None
            gradient = np.concatenate([g for _, g in pushes]) if len(pushes) > 1 else pushes[0][1]
            self._step_rows(*sum_duplicates(slots, gradient, self._marker))
            return
        total = pushes[0][1] if pushes[0][0] is None else np.zeros_like(self._weights)
        for slots, gradient in pushes if pushes[0][0] is not None else pushes[1:]:
            if slots is None:
                total += gradient
            else:
                np.add.at(total, slots, gradient)
        self._optimizer.step(self._weights, total, *self._state)

    def _step_rows(self, slots: Slots, gradient: Array) -> None:
        arrays = (self._weights, *self._state)
        rows = [array[slots] for array in arrays]
        self._optimizer.step(rows[0], gradient, *rows[1:])
        for array, changed in zip(arrays, rows, strict=True):
            array[slots] = changed


class DenseTable(Shard):
    """One server's contiguous rows of a dense table; its keys are row numbers counted from its first row."""

    def __init__(self, spec: TableSpec, update: Callable[..., Any] | None, rank: int, servers: int) -> None:
        mine = row_ranges(spec.shape[0], servers)[rank]
        super().__init__(spec, update, len(mine))
        rows = np.arange(mine.start, mine.stop, dtype=np.int64)
        self._weights[...] = self._init.fill(rows, spec.width, spec.dtype).reshape(self._weights.shape)

    def slots(self, keys: Slots) -> Slots:
        """The keys themselves.

        Raises:
            TableError: A row outside the shard.
        """
        if exceed(keys, self.rows):
            raise TableError(f"table {self.spec.name!r}: a row number outside this shard of {self.rows} rows")
        return keys

    def export(self) -> tuple[Slots | None, Array]:
        """Every row."""
        return None, self._weights

    def _place(self, arrays: Mapping[str, Array]) -> None:
        if arrays["weights"].shape != self._weights.shape:
            raise TableError(
                f"table {self.spec.name!r}: this shard's weights are of shape {self._weights.shape}; "
                f"the saved ones of shape {arrays['weights'].shape}"
            )


class SparseTable(Shard):
    """Rows by int64 key, made by the initialiser when a key is first pulled or pushed."""

    def __init__(self, spec: TableSpec, update: Callable[..., Any] | None) -> None:
        super().__init__(spec, update, rows=1024)
        self._index: dict[int, int] = {}
        self._keys = np.empty(1024, np.int64)

    @property
    def rows(self) -> int:
        """Rows made so far."""
        return len(self._index)

    def slots(self, keys: Slots) -> Slots:
        """Where the rows of ``keys`` lie, making those that are missing."""
        found = np.fromiter(map(self._index.get, keys.tolist(), repeat(-1)), np.int64, len(keys))
        missing = np.flatnonzero(found < 0)
        if len(missing):
            wanted = keys[missing].tolist()
            self._make(list(dict.fromkeys(wanted)))
            found[missing] = np.fromiter(map(self._index.__getitem__, wanted), np.int64, len(wanted))
        return found

    def export(self) -> tuple[Slots | None, Array]:
        """Keys and rows, in the order they were made."""
        return self._keys[: self.rows], self._weights[: self.rows]

    def _place(self, arrays: Mapping[str, Array]) -> None:
        self._index.clear()
        self.slots(np.ascontiguousarray(arrays["keys"], np.int64))

    def _keys_of(self, slots: Slots) -> Slots:
        return self._keys[slots]

    def _make(self, keys: list[int]) -> None:
        first = self.rows
        last = first + len(keys)
        if last > len(self._keys):
            self._grow(max(last, 2 * len(self._keys)))
        self._index.update(zip(keys, range(first, last), strict=True))
        self._keys[first:last] = keys
        self._weights[first:last] = self._init.fill(self._keys[first:last], self.spec.width, self.spec.dtype)

    def _grow(self, capacity: int) -> None:
        self._weights = _larger(self._weights, capacity)
        self._state = [_larger(array, capacity) for array in self._state]
        self._keys = _larger(self._keys, capacity)
        self._marker = np.zeros(capacity, np.int64)


def sum_duplicates(slots: Slots, gradient: Array, marker: Slots) -> tuple[Slots, Array]:
    """Add up the gradients of equal slots.

    Args:
        slots: Row numbers, shape (n,).
        gradient: Shape (n, ...).
        marker: Scratch memory with an element for every row; finds duplicates without sorting.

    Returns:
        Slots without duplicates and a gradient for each; the arguments themselves when there were none.
    """
    order = np.arange(len(slots))
    marker[slots] = order
    winner = marker[slots]
    last = winner == order  # one position for each slot: the last that wrote its marker
    if last.all():
        return slots, gradient
    place = np.cumsum(last) - 1
    total = np.zeros((int(last.sum()), *gradient.shape[1:]), gradient.dtype)
    np.add.at(total, place[winner], gradient)
    return slots[last], total


def _larger(array: Array, capacity: int) -> Array:
    grown = np.zeros((capacity, *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown
