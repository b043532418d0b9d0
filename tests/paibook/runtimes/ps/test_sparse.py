"""Sparse tables against an oracle that is a dictionary of rows: pushes, expiry, eviction, disk, dumps, all dtypes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paibook.errors import RunError, TableError
from paibook.runtimes.ps import budget as budget_module
from paibook.runtimes.ps import sparse as sparse_module
from paibook.runtimes.ps import spill as spill_module
from paibook.runtimes.ps.admission import ByCount, ByProbability, CountMinSketch
from paibook.runtimes.ps.budget import MemoryBudget
from paibook.runtimes.ps.index import KeyIndex
from paibook.runtimes.ps.initializers import Uniform
from paibook.runtimes.ps.optimizers import SGD, Adagrad, Momentum
from paibook.runtimes.ps.shards import TableSpec, hash_texts
from paibook.runtimes.ps.sparse import SparseTable

DTYPES = ("float16", "bfloat16", "float32", "float64", "int32", "int64")
key_lists = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 40), max_size=30)


def spec(optimizer: Any = SGD(1.0), width: int = 2, dtype: str = "float64", init: Any = 0.0, **life: Any) -> TableSpec:  # noqa: B008
    return TableSpec.declare("e", None, width, True, dtype, optimizer, init, **life)


def array(keys: Any) -> np.ndarray:
    return np.array(keys, np.int64)


def tiny() -> MemoryBudget:
    """One that holds next to nothing, so that every push meets the disk."""
    made = MemoryBudget(1 << 50)
    made.limit = 0
    return made


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_module, "_FIRST", 8)
    monkeypatch.setattr(sparse_module, "_BATCH", 16)
    monkeypatch.setattr(budget_module, "LEAST", 4)


class Oracle:
    """What a sparse table with momentum is, in a dictionary: key to [weight, velocity, step, clock]."""

    def __init__(self, most: int | None, expire_after: int | None) -> None:
        self.most, self.expire_after = most, expire_after
        self.rows: dict[int, list[float]] = {}
        self.steps = self.clock = 0

    def push(self, keys: list[int], gradients: list[float], clock: int) -> None:
        if clock > self.clock:
            self.clock = clock
            if self.expire_after is not None:
                self.rows = {k: row for k, row in self.rows.items() if row[3] > clock - 1 - self.expire_after}
        self.steps += 1
        totals: dict[int, float] = {}
        for key, gradient in zip(keys, gradients, strict=True):
            totals[key] = totals.get(key, 0.0) + gradient
        for key, total in totals.items():
            row = self.rows.setdefault(key, [1.0, 0.0, 0, 0])
            row[1] = 0.5 * row[1] + total
            row[0] -= row[1]
            row[2:] = [self.steps, self.clock]
        if self.most is not None and len(self.rows) > self.most:
            oldest = sorted(self.rows, key=lambda k: (self.rows[k][2], k))
            for key in oldest[: len(self.rows) - self.most + self.most // 16]:
                del self.rows[key]


def exported(table: SparseTable) -> tuple[np.ndarray, np.ndarray]:
    parts = [(np.empty(0, np.int64), np.empty((0, *table.spec.row_shape), table.spec.dtype)), *table.export()]
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))  # type: ignore[return-value]


def check(table: SparseTable, oracle: Oracle) -> None:
    keys, rows = exported(table)
    assert dict(zip(keys.tolist(), rows[:, 1].tolist(), strict=True)) == {k: r[0] for k, r in oracle.rows.items()}
    asked = [*oracle.rows, 12345678]
    assert table.read(array(asked), False)[:, 0].tolist() == [oracle.rows.get(k, [1.0])[0] for k in asked]
    usage = table.usage()
    assert usage["rows_in_memory"] + usage["rows_on_disk"] == table.rows == len(oracle.rows)


@settings(deadline=None, max_examples=60)
@given(
    sets=st.lists(key_lists, min_size=4, max_size=4),
    pushes=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=12),
    most=st.none() | st.integers(1, 40),
    expire_after=st.none() | st.integers(1, 3),
    on_disk=st.booleans(),
    move_at=st.integers(0, 12),
)
def test_a_table_with_a_life_is_a_dictionary_of_rows(
    sets: list[list[int]],
    pushes: list[tuple[int, int]],
    most: int | None,
    expire_after: int | None,
    on_disk: bool,
    move_at: int,
) -> None:
    # The same arrays again and again, as a connection's remembered sets are, so that places are remembered too.
    arrays = [array(keys) for keys in sets]

    def make() -> SparseTable:
        declared = spec(Momentum(1.0, 0.5), init=1.0, max_rows=most, expire_after=expire_after)
        return SparseTable(declared, None, budget=tiny() if on_disk else None)

    table, oracle, clock = make(), Oracle(most, expire_after), 0
    for number, (which, ticks) in enumerate(pushes):
        keys = sets[which]
        clock += ticks
        gradients = [float(i % 5) for i in range(len(keys))]
        if number == move_at:  # to a replica, whose memory is another
            replica = make()
            replica.load(table.dump())
            table = replica
        table.apply(arrays[which], np.repeat(gradients, 2).reshape(-1, 2), clock)
        oracle.push(keys, gradients, clock)
        check(table, oracle)
        for keys, pulled in zip(sets, arrays, strict=True):
            assert table.read(pulled, False)[:, 1].tolist() == [oracle.rows.get(k, [1.0])[0] for k in keys]
    table.close()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("on_disk", [False, True])
def test_every_dtype_in_memory_and_on_disk(dtype: str, on_disk: bool) -> None:
    whole = dtype.startswith("int")
    declared = spec(None if whole else SGD(1.0), 3, dtype, 2.0)
    table = SparseTable(declared, lambda w, g: w - g, budget=tiny() if on_disk else None)
    expected: dict[int, float] = {}
    for start in range(0, 60, 4):
        keys = np.arange(start, start + 12, dtype=np.int64) % 50
        table.apply(keys, np.full((12, 3), start % 7).astype(dtype))
        for key in keys.tolist():
            expected[key] = expected.get(key, 2.0) - start % 7
    rows = table.read(array(list(expected)), False)
    assert rows.dtype.name == dtype
    assert rows[:, 2].astype(float).tolist() == list(expected.values())
    assert (table.usage()["rows_on_disk"] > 0) == on_disk
    table.close()


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), key_lists), max_size=20))
def test_the_index_is_a_dictionary(turns: list[tuple[bool, list[int]]]) -> None:
    index, expected = KeyIndex(4), {}
    free, left = np.arange(2000)[::-1].copy(), 2000
    for adds, keys in turns:
        if adds:
            places, added, left = index.add(array(keys), free, left)
            expected.update((keys[i], places[i]) for i in added)
            assert places.tolist() == [expected[key] for key in keys]
        else:
            index.delete(array(keys))
            expected = {key: place for key, place in expected.items() if key not in keys}
            assert (index.find(array(keys)) == -1).all()
        found, places = index.items()
        assert dict(zip(found.tolist(), places.tolist(), strict=True)) == expected
        assert len(index) == len(expected)
        index.put(array(list(expected)), array([place + 7 for place in expected.values()]))
        expected = {key: place + 7 for key, place in expected.items()}
    fresh = [key for key in range(10**9, 10**9 + 2003) if key not in expected][:3]
    with pytest.raises(IndexError, match="too few"):
        index.add(array(fresh), free, 2)


def test_a_key_takes_its_row_and_little_more() -> None:
    table = SparseTable(spec(width=1, dtype="float32"), None)
    rng = np.random.default_rng(0)
    for turn in range(60):
        table.apply(rng.integers(-(2**63), 2**63 - 1, 1000), np.ones((1000, 1), np.float32))
        if turn > 20:  # by then what a table begins with counts for little
            # The weight, a mark, the key and the place of its row, the index's free entries, and the stock of slots.
            assert table.usage()["bytes_in_memory"] / table.rows < 4 + 4 + 16 * 1.5 / 0.75 + 4


def test_what_is_pulled_but_never_pushed_takes_no_row() -> None:
    table = SparseTable(spec(init=Uniform(seed=3)), None)
    keys = array([5, 7, 5])
    before = table.read(keys, False)
    assert table.rows == 0
    assert np.array_equal(before[0], before[2])
    table.apply(array([5]), np.zeros((1, 2)))
    assert np.array_equal(table.read(keys, False), before)
    assert table.rows == 1


def test_a_key_is_admitted_at_its_third_push() -> None:
    table = SparseTable(spec(admit=ByCount(3)), None)
    for _ in range(2):
        table.apply(array([1, 2]), np.ones((2, 2)))
    assert table.rows == 0
    replica = SparseTable(spec(admit=ByCount(3)), None)
    replica.load(table.dump())
    for shard in (table, replica):
        shard.apply(array([2, 3, 3, 3]), np.ones((4, 2)))
        assert shard.read(array([1, 2, 3]), False)[:, 0].tolist() == [0, -1, -3]


def test_admission_by_probability_can_be_repeated_and_keeps_its_rate() -> None:
    def run() -> SparseTable:
        table = SparseTable(spec(width=1, admit=ByProbability(0.1, seed=4)), None)
        for _ in range(2):
            table.apply(np.arange(20_000), np.ones((20_000, 1)))
        return table

    first, second = run(), run()
    assert 3500 < first.rows < 4100  # 1 - 0.9**2 of 20,000 is 3800
    assert np.array_equal(exported(first)[0], exported(second)[0])


@settings(deadline=None)
@given(st.lists(st.integers(0, 300), max_size=400))
def test_the_sketch_never_counts_too_low(keys: list[int]) -> None:
    sketch = CountMinSketch(width=64)
    for start in range(0, len(keys), 50):
        unique, counts = np.unique(array(keys[start : start + 50]), return_counts=True)
        now = sketch.count(unique, counts)
        seen = keys[: start + 50]
        assert all(count >= seen.count(key) for key, count in zip(unique.tolist(), now.tolist(), strict=True))


def test_rows_expire_under_bsp_too() -> None:
    table = SparseTable(spec(expire_after=2), None)
    table.keep(0, 0, array([1, 2]), np.ones((2, 2)))
    table.apply_kept(0)
    table.keep(1, 0, array([2]), np.ones((1, 2)))
    table.apply_kept(1)
    table.apply_kept(2)
    assert table.rows == 2
    table.keep(3, 0, array([3]), np.ones((1, 2)))
    table.apply_kept(3)
    assert sorted(exported(table)[0].tolist()) == [2, 3]


def test_servers_share_the_most_rows() -> None:
    table = SparseTable(spec(max_rows=10), None, servers=3)
    table.apply(np.arange(20), np.ones((20, 2)))
    assert table.rows == 4


def test_disk_takes_what_memory_does_not_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_module, "_FIRST", 256)
    shared = tiny()
    shared.limit = 1_000_000
    table = SparseTable(spec(Adagrad(1.0), 16, "float32"), None, budget=shared, folder=str(tmp_path))
    rng = np.random.default_rng(0)
    expected = np.zeros(20_000, np.float32)
    for _ in range(60):
        keys = rng.integers(0, 20_000, 500)
        table.apply(keys, np.ones((500, 16), np.float32))
        expected[keys] = 1
    usage = table.usage()
    assert usage["rows_on_disk"] > 10_000
    assert usage["bytes_in_memory"] < 1_100_000  # the index, which stays, is the half of it
    assert usage["bytes_on_disk"] >= usage["rows_on_disk"] * 128
    assert not list(tmp_path.iterdir())
    pushed = table.read(np.arange(20_000), False)[:, 0] != 0
    assert np.array_equal(pushed, expected == 1)
    other = SparseTable(spec(), None, budget=shared)  # takes half of the memory
    table.apply(array([1]), np.ones((1, 16), np.float32))
    assert table.usage()["rows_in_memory"] < usage["rows_in_memory"]
    other.close()
    table.close()


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spill_module.os, "pwrite", full)
    table = SparseTable(spec(), None, budget=tiny(), folder=str(tmp_path))
    table.apply(np.arange(8), np.ones((8, 2)))
    with pytest.raises(RunError, match=r"table 'e': cannot write rows .* No space left on device; free space there"):
        table.apply(np.arange(8, 16), np.ones((8, 2)))


def test_too_little_memory_for_any_table_is_named() -> None:
    with pytest.raises(RunError, match=r"--memory 1MB is less than a server takes .*; give it"):
        SparseTable(spec(), None, budget=MemoryBudget(1 << 20)).apply(array([1]), np.ones((1, 2)))


def test_wild_gradients_stop_or_are_skipped() -> None:
    gradient = np.array([[1, 2], [np.nan, 0], [3, -np.inf]], np.float32)
    declared = spec(dtype="float32")
    with pytest.raises(RunError, match=r"table 'e': worker rank 2 pushed .* in clock 7 \(key 8, 2 of 3 rows\)"):
        SparseTable(declared, None).finite(array([4, 8, 9]), gradient, 2, 7)
    table = SparseTable(declared, None, nan="skip")
    keys, kept, skipped = table.finite(array([4, 8, 9]), gradient, 2, 7)
    assert keys is not None
    assert keys.tolist() == [4]
    assert kept.tolist() == [[1, 2]]
    assert skipped == 2
    for dtype in ("float16", "bfloat16", "float64"):
        table = SparseTable(spec(dtype=dtype), None, nan="skip")
        largest = 6e4 if dtype == "float16" else 1e38
        assert len(table.finite(array([1, 2]), np.array([[1, largest], [np.inf, 1]]).astype(dtype), 0, 0)[1]) == 1


def test_texts_are_keys_by_their_hash() -> None:
    keys = hash_texts(np.array(["user=7", "user=8", "", "ü", "user=7"], object))
    assert keys.dtype == np.int64
    assert keys[0] == keys[4]
    assert len(set(keys.tolist())) == 4
    assert keys[0] == hash_texts(np.array(["user=7"]))[0]
    assert keys[0] == -5090342850300670144  # in every process and version


@pytest.mark.parametrize(
    ("life", "message"),
    [
        ({"admit": 3}, "admit takes pai.ByCount"),
        ({"admit": ByCount(0)}, "whole number from 1"),
        ({"admit": ByProbability(2.0)}, "above 0, up to 1"),
        ({"expire_after": 0}, "expire_after takes a whole number"),
        ({"max_rows": 1.5}, "max_rows takes a whole number"),
        ({"evict": "fifo"}, "evict takes 'lru'"),
    ],
)
def test_lives_that_cannot_be_meant(life: dict[str, Any], message: str) -> None:
    with pytest.raises(TableError, match=message):
        spec(**life)
    with pytest.raises(TableError, match=r"only rows of sparse tables|no width|evict"):
        TableSpec.declare("w", 3, None, False, "float32", SGD(), 0.0, **life)
