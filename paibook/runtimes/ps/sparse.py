"""A server's shard of a sparse table: rows by key, which are made, expire, are evicted, and go to disk and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paibook.runtimes.ps import steps
from paibook.runtimes.ps.admission import Admission
from paibook.runtimes.ps.budget import MemoryBudget
from paibook.runtimes.ps.index import MISSING, KeyIndex
from paibook.runtimes.ps.lookups import Lookups
from paibook.runtimes.ps.optimizers import UserUpdate
from paibook.runtimes.ps.shards import TableSpec
from paibook.runtimes.ps.slots import SlotPool
from paibook.runtimes.ps.spill import RowFile
from paibook.runtimes.ps.tables import Array, Keys, Shard, Slots

_FIRST = 1024  # rows to make room for
_SPARED = 16  # one part in so many is evicted beyond the limit, so that the next keys find room
_COLD = 8  # one part in so many of the rows in memory goes to disk at once
_SLACK = 1.5  # times what a table may hold are let be, since packing it takes time
_BATCH = 1 << 10  # rows loaded or moved to or from disk at once


class SparseTable(Shard):
    """Rows by int64 key, made by the initialiser when a key is first pushed.

    The index gives a key's place: a slot in memory, 0 or more, or ``-2 - number`` of a record on disk. Slots change
    hands when rows are deleted or go to disk, so nobody remembers them from one call to the next but ``Lookups``, which
    forget them then.

    Which rows live depends on pushes and clocks alone, not on pulls or memory: replicas agree.

    Args:
        spec, update, nan: As for any shard.
        servers: How many share ``max_rows``.
        budget: What the server's sparse tables may hold in memory; without one nothing goes to disk.
        folder: Where rows go to disk.
    """

    def __init__(
        self,
        spec: TableSpec,
        update: Callable[..., Any] | None,
        servers: int = 1,
        budget: MemoryBudget | None = None,
        folder: str = "",
        nan: str = "stop",
    ) -> None:
        super().__init__(spec, update, _FIRST, nan)
        self._index = KeyIndex()
        self._lookups = Lookups()
        self._limit = None if spec.max_rows is None else -(-spec.max_rows // servers)
        self._admission = None if spec.admit is None else Admission(spec.admit)
        self._budget, self._folder = budget, folder
        if budget is not None:
            budget.join(id(self))
        self._file: RowFile | None = None
        self._forget()
        self._compile()

    def _compile(self) -> None:
        """Have the loops compiled, or read from disk, now, so that the first pull and the first push need not wait."""
        key, none = np.zeros(1, np.int64), np.empty(0, np.int64)
        steps.increasing(self._index.find(none))
        KeyIndex(1).add(key, key, 1)
        steps.gather(self._weights, none, self._weights[:0])
        gradient = np.empty((0, self.spec.width), self._arithmetic)
        steps.wild_rows(gradient.astype(self._weights.dtype, copy=False))
        steps.sum_duplicates(none, gradient, self._marker)
        if not isinstance(self._optimizer, UserUpdate):
            self._steps = 1
            self._move(none, gradient)
            self._steps = 0

    def _forget(self) -> None:
        self._index = KeyIndex()
        self._lookups.clear()
        columns = {}
        if self._limit is not None or self._budget is not None:
            columns["step"] = "i8"  # of the last push
        if self.spec.expire_after is not None:
            columns["clock"] = "i8"
        if columns:
            columns["key"] = "i8"  # of rows that may have to go
        self._memory, self._disk = SlotPool(columns), SlotPool(columns)
        self._memory.grow(len(self._weights))
        self._drop_file()

    @property
    def rows(self) -> int:
        """Rows held, in memory and on disk."""
        return len(self._index)

    def usage(self) -> dict[str, int]:
        """Live numbers: rows in memory and on disk, the bytes they take there, and gradients skipped."""
        with self.lock:
            kept = self._index.nbytes + self._memory.nbytes + self._disk.nbytes + self._lookups.nbytes
            return {
                "rows_in_memory": len(self._memory),
                "rows_on_disk": len(self._disk),
                "bytes_in_memory": kept + len(self._memory) * self._row_bytes,
                "bytes_on_disk": 0 if self._file is None else self._file.nbytes,
                "skipped": self.skipped,
            }

    def export(self) -> Iterator[tuple[Keys | None, Array]]:
        """Keys and rows, in no order that means anything."""
        keys, places = self._index.items()
        for start in range(0, len(keys), self._exported_at_once):
            part = slice(start, start + self._exported_at_once)
            yield keys[part], self._shaped(self._rows_at(places[part], self._planes[:1])[0])

    def close(self) -> None:
        """Give the disk's space back, and the share of memory."""
        self._drop_file()
        if self._budget is not None:
            self._budget.leave(id(self))

    def _drop_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def _planes(self) -> list[Array]:
        return [self._weights, *self._state]

    @property
    def _row_bytes(self) -> int:
        return sum(plane.shape[1] * plane.dtype.itemsize for plane in self._planes) + self._marker.dtype.itemsize

    def _read_rows(self, keys: Keys) -> Array:
        out = np.empty((len(keys), self.spec.width), self._weights.dtype)
        known = self._lookups.get(keys)
        if known is not None:
            steps.gather(self._weights, known.places, out)
            return out
        places = self._index.find(keys)
        steps.gather(self._weights, places, out)
        if not len(places):
            return out
        if places.min() >= 0:
            self._lookups.add(keys, places, steps.increasing(keys))
        else:
            missing, away = places == MISSING, places < MISSING
            if missing.any():
                out[missing] = self._init.fill(keys[missing], self.spec.width, self.spec.dtype)
            if away.any():
                out[away] = self._recorded(places[away])[0]
        return out

    def _step_rows(self, keys: Keys, gradient: Array) -> None:
        if self._budget is not None:
            self._shrink(self._budget)
        known = self._lookups.get(keys)
        slots = self._index.find(keys) if known is None else known.places
        if self._memory.columns:
            self._touch(slots[slots >= 0])
        if known is None and len(slots) and slots.min() < 0:
            self._recall(keys, slots)
            self._create(keys, slots)
            admitted = slots >= 0
            slots, gradient = slots[admitted], gradient[admitted]
        if not (steps.increasing(keys) if known is None else known.distinct):
            slots = slots if known is None else slots.copy()
            count = steps.sum_duplicates(slots, gradient, self._marker)
            if known is not None:
                known.distinct = count == len(slots)
            slots, gradient = slots[:count], gradient[:count]
        if len(slots):
            self._move(slots, gradient)
        if self._limit is not None and self.rows > self._limit:
            self._evict(self.rows - self._limit + self._limit // _SPARED)

    def _touch(self, slots: Slots) -> None:
        """These rows are pushed now; until the step is over they also stay in memory."""
        self._memory.note(slots, step=self._steps, clock=self._clock)

    def _create(self, keys: Keys, slots: Slots) -> None:
        """Make rows for the keys without a slot that are admitted; fills in their slots."""
        missing = np.flatnonzero(slots == MISSING)
        if self._admission is not None and len(missing):
            missing = missing[self._admission.admit(keys[missing], self._steps)]
        if not len(missing):
            return
        self._make_room(len(missing))
        wanted = keys[missing]
        places, added, left = self._index.add(wanted, *self._memory.stock(len(missing)))
        self._memory.left = left
        slots[missing] = places
        self._fill(wanted[added], places[added])

    def _fill(self, keys: Keys, slots: Slots) -> None:
        self._memory.note(slots, key=keys)
        self._weights[slots] = self._init.fill(keys, self.spec.width, self.spec.dtype)
        for array in self._state:
            array[slots] = 0
        self._touch(slots)

    def _remove(self, pool: SlotPool, slots: Slots) -> None:
        if not len(slots):
            return
        self._lookups.clear()
        self._index.delete(pool.columns["key"][slots])
        pool.give(slots)

    def _expire(self, clock: int) -> None:
        if self.spec.expire_after is None:
            return
        for pool in (self._memory, self._disk):
            clocks = pool.columns["clock"][: pool.end]
            self._remove(pool, np.flatnonzero((clocks >= 0) & (clocks < clock - self.spec.expire_after)))

    def _evict(self, count: int) -> None:
        """Delete the rows whose last push is longest ago; of those of one step, the smallest keys."""
        pools = (self._memory, self._disk)
        live = [pool.live("step") for pool in pools]
        step = np.concatenate([pool.columns["step"][slots] for pool, slots in zip(pools, live, strict=True)])
        key = np.concatenate([pool.columns["key"][slots] for pool, slots in zip(pools, live, strict=True)])
        oldest = np.lexsort((key, step))[:count]
        here = oldest < len(live[0])
        self._remove(self._memory, live[0][oldest[here]])
        self._remove(self._disk, live[1][oldest[~here] - len(live[0])])

    # Memory and disk.

    def _make_room(self, count: int) -> None:
        """See that so many slots are free: grow, send cold rows to disk, or, for a huge push, exceed the budget."""
        if self._budget is None:
            short = count - self._memory.free
            if short > 0:
                self._resize(max(2 * len(self._weights), len(self._weights) + short))
            return
        allowed = self._allowed(self._budget)
        short = len(self._memory) + count - allowed
        if short > 0:
            self._send_to_disk(max(short, len(self._memory) // _COLD))
        # All at once, so that growing never copies; memory is not taken before rows are written.
        self._resize(max(allowed, len(self._memory) + count))

    def _resize(self, capacity: int) -> None:
        if capacity > len(self._weights):
            self._weights = _larger(self._weights, capacity)
            self._state = [_larger(array, capacity) for array in self._state]
            self._marker = _larger(self._marker, capacity)
            self._memory.grow(capacity)

    def _allowed(self, budget: MemoryBudget) -> int:
        """Rows that may be in memory."""
        kept = self._index.nbytes + self._disk.nbytes + self._lookups.nbytes
        rows = (budget.share() - kept) // (self._row_bytes + self._memory.slot_bytes)
        return max(_FIRST, rows)

    def _shrink(self, budget: MemoryBudget) -> None:
        """Give memory back that this table had before others came."""
        allowed = self._allowed(budget)
        if self._memory.end <= _SLACK * allowed:
            return
        self._send_to_disk(len(self._memory) - allowed)
        self._lookups.clear()
        live = self._memory.live("step")
        capacity = max(allowed, len(live))
        # One array after the other, so that only one is there twice.
        self._weights = _packed(self._weights, live, capacity)
        for number, plane in enumerate(self._state):
            self._state[number] = _packed(plane, live, capacity)
        self._marker = np.empty(capacity, np.int32)
        columns = {name: column[live] for name, column in self._memory.columns.items()}
        self._memory = SlotPool({name: column.dtype for name, column in columns.items()})
        self._memory.grow(capacity)
        slots = self._memory.take(len(live))
        for name, column in columns.items():
            self._memory.columns[name][slots] = column
        self._index.put(columns["key"], slots)

    def _send_to_disk(self, count: int) -> None:
        """Move the rows whose last push is longest ago, but none of this step's."""
        live = self._memory.live("step")
        step = self._memory.columns["step"][live]
        cold = live[step < self._steps]
        if count <= 0 or not len(cold):
            return
        self._lookups.clear()
        if count < len(cold):
            cold = cold[np.argpartition(self._memory.columns["step"][cold], count)[:count]]
        if self._file is None:
            self._file = RowFile(self._planes, self._folder, self.spec.name)
        if (short := len(cold) - self._disk.free) > 0:
            self._disk.grow(max(self._disk.capacity * 3 // 2, self._disk.capacity + short))
        for start in range(0, len(cold), _BATCH):
            slots = cold[start : start + _BATCH]
            numbers = self._disk.take(len(slots))
            self._file.write(numbers, [plane[slots] for plane in self._planes])
            self._disk.copy(numbers, self._memory, slots)
            self._index.put(self._memory.columns["key"][slots], -2 - numbers)
            self._memory.give(slots)

    def _recall(self, keys: Keys, slots: Slots) -> None:
        """Bring the rows of a push back from disk; fills in their slots."""
        away = np.flatnonzero(slots < MISSING)
        if not len(away):
            return
        places, first, back = np.unique(slots[away], return_index=True, return_inverse=True)
        self._make_room(len(places))
        taken, numbers = self._memory.take(len(places)), -2 - places
        for plane, rows in zip(self._planes, self._recorded(places), strict=True):
            plane[taken] = rows
        self._memory.copy(taken, self._disk, numbers)
        self._index.put(keys[away[first]], taken)
        self._disk.give(numbers)
        slots[away] = taken[back]
        self._touch(taken)

    def _recorded(self, places: Slots) -> list[Array]:
        assert self._file is not None, "a place on disk, but no file"
        return self._file.read(-2 - places)

    def _rows_at(self, places: Slots, planes: list[Array]) -> list[Array]:
        """The first planes, weights and then state, at places in memory and on disk."""
        rows = [np.empty((len(places), plane.shape[1]), plane.dtype) for plane in planes]
        for plane, out in zip(planes, rows, strict=True):
            steps.gather(plane, places, out)
        away = np.flatnonzero(places < MISSING)
        for start in range(0, len(away), _BATCH):
            some = away[start : start + _BATCH]
            for out, recorded in zip(rows, self._recorded(places[some]), strict=False):
                out[some] = recorded
        return rows

    # Replicas and checkpoints.

    def _dump_rows(self) -> dict[str, Array]:
        keys, places = self._index.items()
        weights, *state = self._rows_at(places, self._planes)
        away = places < MISSING
        arrays: dict[str, Array] = {"keys": keys, "weights": self._shaped(weights)}
        arrays |= {f"state.{n}": self._shaped(array) for n, array in zip(self._optimizer.state, state, strict=True)}
        for name, column in self._memory.columns.items():
            if name != "key":
                arrays[f"pushed.{name}"] = np.where(away, 0, column[np.where(away, 0, places)])
                arrays[f"pushed.{name}"][away] = self._disk.columns[name][-2 - places[away]]
        if self._admission is not None and self._admission.sketch is not None:
            arrays["admission.counters"] = self._admission.sketch.counters.copy()
        return arrays

    def _load_rows(self, arrays: Mapping[str, Array]) -> None:
        self._forget()
        if self._admission is not None and self._admission.sketch is not None and "admission.counters" in arrays:
            self._admission.sketch.counters[...] = arrays["admission.counters"]
        names = ["weights", *(f"state.{name}" for name in self._optimizer.state)]
        self._steps += 1  # so that even rows of the last step may go to disk meanwhile
        for start in range(0, len(arrays["keys"]), _BATCH):
            part = slice(start, start + _BATCH)
            keys = np.ascontiguousarray(arrays["keys"][part], np.int64)
            self._make_room(len(keys))
            slots = self._memory.take(len(keys))
            for name, plane in zip(names, self._planes, strict=True):
                plane[slots] = arrays[name][part].reshape(len(keys), -1)
            pushed = {name: self._pushed(arrays, name, part) for name in ("step", "clock")}
            self._memory.note(slots, key=keys, **pushed)
            self._index.put(keys, slots)
        self._steps -= 1

    def _pushed(self, arrays: Mapping[str, Array], name: str, part: slice) -> Any:
        # A table that was saved without a limit counts as pushed just now.
        now = self._steps - 1 if name == "step" else self._clock
        return arrays[f"pushed.{name}"][part] if f"pushed.{name}" in arrays else now


def _packed(array: NDArray[Any], live: Slots, capacity: int) -> NDArray[Any]:
    """The rows of ``live`` slots, from the first on."""
    packed = np.zeros((capacity, *array.shape[1:]), array.dtype)
    for start in range(0, len(live), _BATCH):
        packed[start : start + _BATCH][: len(live) - start] = array[live[start : start + _BATCH]]
    return packed


def _larger(array: NDArray[Any], capacity: int) -> NDArray[Any]:
    grown = np.zeros((capacity, *array.shape[1:]), array.dtype)  # zeros take no memory before they are written
    grown[: len(array)] = array
    return grown
