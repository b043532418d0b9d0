"""A server's shards: rows of weights, what the optimiser keeps beside them, and pushes that wait for their clock.

Loads numba, so it is imported where tables are made: in servers.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paibook.errors import RunError, TableError
from paibook.runtimes.ps import initializers, optimizers, steps
from paibook.runtimes.ps.budget import MemoryBudget
from paibook.runtimes.ps.optimizers import UserUpdate
from paibook.runtimes.ps.shards import TableSpec, exceed, row_ranges

EXPORT_BYTES = 4 << 20  # of weights, at a time

Array = NDArray[Any]
Keys = NDArray[np.int64]
Slots = NDArray[np.int64]
Push = tuple[Keys | None, Array]  # keys (None: every row) and their gradients, of shape (n, width)


class Shard:
    """Rows in one array and each of the optimiser's numbers in an array beside it; ``lock`` guards all of them.

    Rows lie flat, as (rows, width), whatever their shape. Tables of 16 bits are stepped in float32.

    Args:
        spec: The table's declaration.
        update: The cell's own ``update(weight, grad)``, if any.
        rows: Rows to make room for.
        nan: What a gradient with NaN or an infinity does: ``"stop"`` the run, or ``"skip"`` that row.

    Attributes:
        first: The row of the table from which its keys are counted.
        skipped: Rows of gradients dropped under ``"skip"``.
    """

    def __init__(self, spec: TableSpec, update: Callable[..., Any] | None, rows: int, nan: str = "stop") -> None:
        self.spec = spec
        self.first = 0
        self.lock = threading.RLock()
        self.skipped = 0
        self._nan = nan
        self._optimizer = optimizers.from_wire(spec.optimizer, update)
        self._init = initializers.from_wire(spec.init)
        dtype = np.dtype(spec.dtype)
        self._arithmetic = np.dtype(np.float32) if dtype.itemsize == 2 else dtype
        self._weights = np.empty((rows, spec.width), dtype)
        self._state = [np.zeros((rows, spec.width), self._arithmetic) for _ in self._optimizer.state]
        self._marker = np.empty(rows, np.int32)
        self._steps = 0
        self._clock = 0
        self._waiting: dict[int, dict[int, list[Push]]] = {}
        self._loans: list[weakref.ref[Array]] = []  # all rows as they were given to be sent

    @property
    def rows(self) -> int:
        """Rows held."""
        return len(self._weights)

    def usage(self) -> dict[str, int]:
        """Live numbers: rows in memory and on disk, the bytes they take there, and gradients skipped."""
        used = self._weights.nbytes + sum(array.nbytes for array in self._state)
        return {
            "rows_in_memory": self.rows,
            "rows_on_disk": 0,
            "bytes_in_memory": used,
            "bytes_on_disk": 0,
            "skipped": self.skipped,
        }

    def export(self) -> Iterator[tuple[Keys | None, Array]]:
        """The keys (None when dense) and the rows, for the run's result: some at a time, to take little memory.

        The shard must not change meanwhile. What is given may be its own memory.
        """
        raise NotImplementedError

    def read(self, keys: Keys | None, stable: bool) -> Array:
        """Weights of ``keys``, or of every row.

        Args:
            keys: Those without a row read as the initialiser would make them; reading makes none.
            stable: Nobody may change the shard before the caller is done.

        Returns:
            An array; without ``keys`` the shard's own, which does not change while the caller holds that array.
        """
        with self.lock:
            if keys is not None:
                return self._shaped(self._read_rows(keys))
            rows = self._shaped(self._weights[:])
            if not stable:
                self._loans = [loan for loan in self._loans if loan() is not None]
                self._loans.append(weakref.ref(rows))
            return rows

    def _keep_loans(self) -> None:
        """The weights are about to change: where somebody still sends them, go on with a copy."""
        if any(loan() is not None for loan in self._loans):
            self._weights = self._weights.copy()
        self._loans.clear()

    def finite(self, keys: Keys | None, gradient: Array, rank: int, clock: int) -> tuple[Keys | None, Array, int]:
        """What may be kept or applied of a push that has just arrived, and how many rows of it may not.

        Raises:
            RunError: It holds NaN or an infinity, and the policy is to stop.
        """
        wild = steps.wild_rows(gradient.reshape(-1, self.spec.width))
        if wild is None:
            return keys, gradient, 0
        count = int(wild.sum())
        if self._nan == "stop":
            first = int(np.flatnonzero(wild)[0])
            row = first if keys is None else int(keys[first])
            raise RunError(
                f"table {self.spec.name!r}: worker rank {rank} pushed a gradient with NaN or infinity in clock {clock} "
                f"({self._named(row)}, {count} of {len(wild)} rows). Look at the loss there, or lower the learning "
                "rate; --nan skip drops such rows and goes on"
            )
        if keys is None:
            gradient[wild] = 0
            return None, gradient, count
        return keys[~wild], gradient[~wild], count

    def skip(self, count: int) -> None:
        """Count rows of gradients that were dropped."""
        with self.lock:
            self.skipped += count

    def apply(self, keys: Keys | None, gradient: Array, clock: int = 0) -> None:
        """Do one push now, made in ``clock``; owns ``gradient`` from now on."""
        with self.lock:
            self._check(keys)
            self._come_to(clock)
            self._step([(keys, self._flat(gradient))])

    def keep(self, clock: int, rank: int, keys: Keys | None, gradient: Array) -> None:
        """Hold a push back until its clock is over; owns ``gradient`` from now on."""
        with self.lock:
            self._check(keys)
            pushes = self._waiting.setdefault(clock, {}).setdefault(rank, [])
            if keys is None and pushes and pushes[-1][0] is None:
                pushes[-1][1].__iadd__(self._flat(gradient))
            else:
                pushes.append((keys, self._flat(gradient)))

    def apply_kept(self, clock: int) -> None:
        """Do the pushes of ``clock`` as one step on their sum, added in rank order so that the result is exact."""
        with self.lock:
            by_rank = self._waiting.pop(clock, {})
            pushes = [push for rank in sorted(by_rank) for push in by_rank[rank]]
            if pushes:
                self._come_to(clock)
                self._step(pushes)

    @property
    def waits(self) -> bool:
        """Whether any push waits for its clock."""
        return any(by_rank for by_rank in self._waiting.values())

    def forget(self, rank: int, clock: int) -> None:
        """Drop what waits of a worker's pushes for ``clock`` and later ones: they will be pushed anew."""
        with self.lock:
            for later in [c for c in self._waiting if c >= clock]:
                self._waiting[later].pop(rank, None)

    def dump(self) -> dict[str, Array]:
        """The complete state as arrays of its own, for a replica or a checkpoint; ``load`` takes them back.

        Returns:
            ``"keys"`` (int64, sparse only), ``"weights"`` (rows, ...), ``"state.<name>"`` for each of the optimiser's
            arrays, ``"counters"`` (int64: steps, clock, skipped), and the pushes that wait for their clock:
            ``"waiting"`` (pushes, 3) with clock, rank and number of keys (-1: every row), ``"waiting.keys"`` and
            ``"waiting.gradients"``, one push's after the other's. Sparse tables with a limited life add to these.
        """
        with self.lock:
            counters = np.array([self._steps, self._clock, self.skipped], np.int64)
            return {**self._dump_rows(), "counters": counters, **self._dump_waiting()}

    def load(self, arrays: Mapping[str, Array]) -> None:
        """Become what ``dump`` described; what was here before is forgotten.

        Args:
            arrays: Without ``"waiting"``, nothing waits; without ``"counters"``, they begin anew.

        Raises:
            TableError: The arrays are not of this table's shape.
        """
        with self.lock:
            self._steps, self._clock, self.skipped = arrays["counters"].tolist() if "counters" in arrays else (0, 0, 0)
            self._load_rows(arrays)
            self._load_waiting(arrays)

    def close(self) -> None:
        """Let go of what is not memory."""

    @property
    def _exported_at_once(self) -> int:
        return max(1, EXPORT_BYTES // self.spec.row_bytes)

    def _check(self, keys: Keys | None) -> None:
        """Refuse keys that are none."""

    def _named(self, key: int) -> str:
        return f"key {key}"

    def _come_to(self, clock: int) -> None:
        """A push of a later clock is here, so those before have ended (under SSP and ASP: for the fastest worker)."""
        if clock > self._clock:
            self._clock = clock
            self._expire(clock)

    def _expire(self, clock: int) -> None:
        """Delete rows that are too old in ``clock``."""

    def _read_rows(self, keys: Keys) -> Array:
        raise NotImplementedError

    def _step_rows(self, keys: Keys, gradient: Array) -> None:
        raise NotImplementedError

    def _dump_rows(self) -> dict[str, Array]:
        raise NotImplementedError

    def _load_rows(self, arrays: Mapping[str, Array]) -> None:
        raise NotImplementedError

    def _flat(self, gradient: Array) -> Array:
        return np.require(gradient.reshape(-1, self.spec.width), self._arithmetic, ["C", "W"])

    def _shaped(self, rows: Array) -> Array:
        return rows.reshape(-1, *self.spec.row_shape)

    def _step(self, pushes: list[Push]) -> None:
        self._steps += 1
        keys = [k for k, _ in pushes if k is not None]
        if len(keys) == len(pushes) and not self._optimizer.every_row:
            self._step_rows(_joined(keys), _joined([gradient for _, gradient in pushes]))
            return
        first, gradient = pushes[0]
        total = gradient if first is None else np.zeros(self._weights.shape, self._arithmetic)
        for where, gradient in pushes if first is not None else pushes[1:]:
            if where is None:
                total += gradient
            else:
                steps.add_rows(total, where, gradient)
        self._move(None, total)

    def _move(self, slots: Slots | None, gradient: Array) -> None:
        """One step of the optimiser on rows without duplicates, or on all of them."""
        self._keep_loans()
        if isinstance(self._optimizer, UserUpdate):
            self._move_by_user(self._optimizer, slots, gradient)
            return
        kind = self._arithmetic.type
        numbers = tuple(kind(number) for number in self._optimizer.numbers(self._steps))
        run = steps.compiled(type(self._optimizer).__name__)
        if self._weights.dtype == self._arithmetic:
            run(self._weights, *self._two(self._state), slots, gradient, numbers)
            return
        rows: Any = slice(None) if slots is None else slots
        weights, state = self._weights[rows].astype(kind), [array[rows] for array in self._state]
        run(weights, *self._two(state), None, gradient, numbers)
        self._weights[rows] = weights.astype(self._weights.dtype)
        for array, changed in zip(self._state, state, strict=True):
            array[rows] = changed

    def _move_by_user(self, optimizer: UserUpdate, slots: Slots | None, gradient: Array) -> None:
        rows: Any = slice(None) if slots is None else slots
        weights = self._shaped(self._weights[rows].astype(self._arithmetic, copy=False))
        before = weights.copy() if self._nan == "skip" else weights
        optimizer.step(weights, self._shaped(gradient))
        wild = steps.wild_rows(weights.reshape(gradient.shape))
        if wild is not None:
            self._keep_from_update(wild, weights, before)
        self._weights[rows] = weights.reshape(gradient.shape)

    def _keep_from_update(self, wild: NDArray[np.bool_], weights: Array, before: Array) -> None:
        """Leave rows as they were ``before``, where the cell's own function has made no numbers of them.

        Raises:
            RunError: The policy is to stop.
        """
        count = int(wild.sum())
        if self._nan == "stop":
            raise RunError(
                f"table {self.spec.name!r}: update(weight, grad) returned NaN or infinity in clock {self._clock} "
                f"({count} of {len(wild)} rows); look at its divisions. --nan skip leaves such rows as they were"
            )
        weights[wild] = before[wild]
        self.skipped += count

    @staticmethod
    def _two(state: list[Array]) -> tuple[Array | None, Array | None]:
        a, b, *_ = (*state, None, None)
        return a, b

    def _dump_waiting(self) -> dict[str, Array]:
        head: list[tuple[int, int, int]] = []
        keys, gradients = [np.empty(0, np.int64)], [np.empty((0, self.spec.width), self._arithmetic)]
        for clock, by_rank in sorted(self._waiting.items()):
            for rank, pushes in sorted(by_rank.items()):
                for where, gradient in pushes:
                    head.append((clock, rank, -1 if where is None else len(where)))
                    gradients.append(gradient)
                    if where is not None:
                        keys.append(where)
        return {
            "waiting": np.array(head, np.int64).reshape(-1, 3),
            "waiting.keys": np.concatenate(keys),
            "waiting.gradients": np.concatenate(gradients),
        }

    def _load_waiting(self, arrays: Mapping[str, Array]) -> None:
        self._waiting = {}
        if "waiting" not in arrays:
            return
        keys, gradients = arrays["waiting.keys"], arrays["waiting.gradients"]
        for clock, rank, count in arrays["waiting"].tolist():
            rows = self.rows if count < 0 else count
            where = None if count < 0 else keys[:count].copy()
            self.keep(clock, rank, where, gradients[:rows].copy())
            keys, gradients = keys[max(count, 0) :], gradients[rows:]


class DenseTable(Shard):
    """One server's contiguous rows of a dense table; its keys are row numbers counted from its first row."""

    def __init__(
        self,
        spec: TableSpec,
        update: Callable[..., Any] | None,
        rank: int,
        servers: int,
        budget: MemoryBudget | None = None,
        nan: str = "stop",
    ) -> None:
        mine = row_ranges(spec.shape[0], servers)[rank]
        try:
            super().__init__(spec, update, len(mine), nan)
            rows = np.arange(mine.start, mine.stop, dtype=np.int64)
            self._weights[...] = self._init.fill(rows, spec.width, spec.dtype)
        except TableError:
            raise
        except (MemoryError, OverflowError, ValueError) as error:  # NumPy says in three ways that it is too large
            part = (mine.stop - mine.start) * spec.row_bytes / 2**30
            raise TableError(
                f"its {spec.shape[0]} rows do not fit into memory: the weights alone of one of {servers} servers take "
                f"{part:.4g} GiB. Give it more servers or fewer rows, or declare it sparse"
            ) from error
        self.first = mine.start
        self._budget = budget
        if budget is not None:
            budget.take(id(self), self.usage()["bytes_in_memory"])

    def close(self) -> None:
        """Count no more as what the server holds."""
        if self._budget is not None:
            self._budget.leave(id(self))

    def export(self) -> Iterator[tuple[Keys | None, Array]]:
        """Every row, in order."""
        for start in range(0, self.rows, self._exported_at_once):
            yield None, self._shaped(self._weights[start : start + self._exported_at_once])

    def _check(self, keys: Keys | None) -> None:
        if keys is not None and exceed(keys, self.rows):
            raise TableError(f"table {self.spec.name!r}: a row number outside this shard of {self.rows} rows")

    def _named(self, key: int) -> str:
        return f"row {self.first + key}"

    def _read_rows(self, keys: Keys) -> Array:
        self._check(keys)
        out = np.empty((len(keys), self.spec.width), self._weights.dtype)
        steps.gather(self._weights, keys, out)
        return out

    def _step_rows(self, keys: Keys, gradient: Array) -> None:
        if steps.increasing(keys):
            self._move(keys, gradient)
            return
        slots = keys.copy()
        count = steps.sum_duplicates(slots, gradient, self._marker)
        self._move(slots[:count], gradient[:count])

    def _dump_rows(self) -> dict[str, Array]:
        state = zip(self._optimizer.state, self._state, strict=True)
        return {
            "weights": self._shaped(self._weights).copy(),
            **{f"state.{name}": self._shaped(array).copy() for name, array in state},
        }

    def _load_rows(self, arrays: Mapping[str, Array]) -> None:
        mine, saved = self._shaped(self._weights).shape, arrays["weights"].shape
        if mine != saved:
            raise TableError(
                f"table {self.spec.name!r}: this shard's weights are of shape {mine}; the saved ones of shape {saved}"
            )
        self._keep_loans()
        self._weights[...] = arrays["weights"].reshape(self._weights.shape)
        for name, array in zip(self._optimizer.state, self._state, strict=True):
            array[...] = arrays[f"state.{name}"].reshape(array.shape)


def _joined(arrays: list[Array]) -> Array:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
