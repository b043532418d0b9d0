"""Shards against a NumPy oracle, and how tables are cut over servers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paibook.errors import RunError, TableError
from paibook.runtimes.ps.initializers import Normal, Uniform
from paibook.runtimes.ps.optimizers import SGD, Adagrad
from paibook.runtimes.ps.shards import TableSpec, owners, row_ranges, split
from paibook.runtimes.ps.sparse import SparseTable
from paibook.runtimes.ps.steps import sum_duplicates
from paibook.runtimes.ps.tables import DenseTable

key_lists = st.lists(st.integers(-(2**62), 2**62) | st.integers(0, 5), max_size=30)


def dense(shape: tuple[int, ...], optimizer: object = SGD(1.0), init: object = 0.0) -> TableSpec:
    return TableSpec.declare("w", shape, None, False, "float64", optimizer, init)


def sparse(width: int = 2, optimizer: object = SGD(1.0), init: object = 0.0) -> TableSpec:
    return TableSpec.declare("e", None, width, True, "float64", optimizer, init)


def array(keys: list[int]) -> np.ndarray:
    return np.array(keys, np.int64)


@settings(deadline=None)  # the first example compiles
@given(st.lists(st.integers(0, 9), min_size=1, max_size=40))
def test_duplicates_add_up(slots: list[int]) -> None:
    gradient = np.random.default_rng(len(slots)).normal(size=(len(slots), 2))
    expected = np.zeros((10, 2))
    np.add.at(expected, slots, gradient)
    unique = array(slots)
    count = sum_duplicates(unique, gradient, np.full(10, 7, np.int32))
    assert unique[:count].tolist() == list(dict.fromkeys(slots))
    assert np.allclose(gradient[:count], expected[unique[:count]])


@given(st.integers(1, 50), st.integers(1, 8))
def test_row_ranges_cover_every_row_once(rows: int, servers: int) -> None:
    ranges = row_ranges(rows, servers)
    assert [row for part in ranges for row in part] == list(range(rows))
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1


@given(key_lists, st.integers(1, 4))
def test_split_gives_every_position_once_to_its_owner(keys: list[int], servers: int) -> None:
    owner = owners(array(keys), servers)
    seen: list[int] = []
    for server, where in split(owner, servers):
        positions = np.arange(len(keys))[where]
        assert (owner[positions] == server).all()
        assert (np.diff(positions) > 0).all()
        seen.extend(positions)
    assert sorted(seen) == list(range(len(keys)))


def test_keys_are_spread_evenly() -> None:
    counts = np.bincount(owners(np.arange(100_000, dtype=np.int64) * 1000, 4))
    assert counts.min() > 24_000


@settings(deadline=None)
@given(st.lists(key_lists, max_size=5))
def test_a_sparse_table_is_a_dictionary_of_rows(pushes: list[list[int]]) -> None:
    table, expected = SparseTable(sparse(init=1.0), None), {}
    for i, keys in enumerate(pushes):
        gradient = np.full((len(keys), 2), i + 1.0)
        table.apply(array(keys), gradient)
        for key in keys:
            expected[key] = expected.get(key, 1.0) - (i + 1.0)
    keys = array(list(expected))
    assert np.array_equal(table.read(keys, False)[:, 0], list(expected.values()))
    assert {int(key): row[1] for keys, rows in table.export() for key, row in zip(keys, rows, strict=True)} == expected


def test_a_sparse_table_grows_and_keeps_its_state() -> None:
    table = SparseTable(sparse(1, Adagrad(lr=1.0)), None)
    table.apply(array([7]), np.array([[2.0]]))
    table.apply(np.arange(100, 5000, dtype=np.int64), np.ones((4900, 1)))
    table.apply(array([7]), np.array([[2.0]]))
    assert table.rows == 4901
    assert table.read(np.arange(10_000, dtype=np.int64), False).shape == (10_000, 1)
    assert table.rows == 4901  # reading makes no rows
    assert table.read(array([7]), False)[0, 0] == pytest.approx(-1 - 2 / np.sqrt(8))


def test_only_pushed_rows_move_under_an_optimizer_with_state() -> None:
    table = DenseTable(dense((6, 2), Adagrad(lr=1.0), init=5.0), None, rank=1, servers=2)
    table.apply(array([2, 0, 2]), np.ones((3, 2)))
    assert np.allclose(table.read(None, False), [[4, 4], [5, 5], [4, 4]])
    with pytest.raises(TableError, match="outside this shard of 3 rows"):
        table.read(array([3]), False)


@given(st.permutations([0, 1, 2, 3]))
def test_kept_pushes_are_one_step_in_rank_order_whoever_came_first(arrival: list[int]) -> None:
    gradients = np.random.default_rng(1).normal(size=(4, 3)) * 10.0 ** np.arange(4)[:, None]
    table, calls = (
        DenseTable(TableSpec.declare("w", 3, None, False, "float64", None, 0.0), lambda w, g: w - g, 0, 1),
        [],
    )
    for rank in arrival:
        table.keep(5, rank, None, gradients[rank].copy())
    table.apply_kept(4)
    assert not table.read(None, True).any()
    table.apply_kept(5)
    table.apply_kept(5)
    total = gradients[0].copy()
    for gradient in gradients[1:]:
        total += gradient
    assert np.array_equal(table.read(None, True), -total)
    assert not calls


def test_whole_and_row_pushes_of_one_clock_mix() -> None:
    table = DenseTable(dense((3,)), None, 0, 1)
    table.keep(0, 1, array([0, 0, 2]), np.array([1.0, 2.0, 4.0]))
    table.keep(0, 0, None, np.array([10.0, 10.0, 10.0]))
    table.keep(0, 0, None, np.array([10.0, 10.0, 10.0]))
    table.apply_kept(0)
    assert table.read(None, True).tolist() == [-23, -20, -24]


def test_an_update_that_returns_nan_stops_or_leaves_the_row() -> None:
    def update(weight: np.ndarray, grad: np.ndarray) -> np.ndarray:
        return np.where(grad > 5, np.nan, weight + grad)

    spec, gradient = (
        TableSpec.declare("w", (3, 2), None, False, "float64", None, 1.0),
        np.array([[1.0, 1], [2, 9], [3, 3]]),
    )
    with pytest.raises(RunError, match=r"table 'w': update\(weight, grad\) returned NaN .* in clock 4 \(1 of 3 rows\)"):
        DenseTable(spec, update, 0, 1).apply(None, gradient.copy(), 4)
    table = DenseTable(spec, update, 0, 1, nan="skip")
    table.apply(None, gradient.copy())
    table.apply(np.array([0, 1]), gradient[:2].copy())
    assert table.read(None, True).tolist() == [[3, 3], [1, 1], [4, 4]]
    assert table.skipped == 2


def test_kept_rows_of_several_ranks_add_up_in_a_sparse_table() -> None:
    table = SparseTable(sparse(1, Adagrad(lr=1.0)), None)
    table.keep(0, 1, array([3, 4]), np.array([[1.0], [1.0]]))
    table.keep(0, 0, array([4]), np.array([[2.0]]))
    table.apply_kept(0)
    assert np.allclose(table.read(array([3, 4]), True), [[-1], [-1]])  # one Adagrad step on the sum 3, not two


@pytest.mark.parametrize("sparsely", [False, True])
def test_a_loaded_shard_goes_on_as_the_dumped_one_would_have(sparsely: bool) -> None:
    def make() -> DenseTable | SparseTable:
        optimizer = Adagrad(lr=1.0)
        return SparseTable(sparse(2, optimizer), None) if sparsely else DenseTable(dense((9, 2), optimizer), None, 0, 1)

    first, second = make(), make()
    second.apply(array([1]), np.ones((1, 2)))  # to be forgotten
    first.apply(array([5, 3]), np.ones((2, 2)))
    first.keep(4, 1, array([8, 3, 3]), np.full((3, 2), 2.0))
    first.keep(4, 0, array([8]), np.full((1, 2), 3.0))
    if not sparsely:
        first.keep(4, 0, None, np.ones((9, 2)))
    first.keep(9, 0, array([1]), np.ones((1, 2)))
    first.forget(0, 5)
    dumped = first.dump()
    assert {"weights", "state.squares"} <= dumped.keys()
    second.load(dumped)
    for shard in (first, second):
        shard.apply_kept(4)
        shard.apply(array([3]), np.ones((1, 2)))
    again = second.dump()
    assert all(np.array_equal(again[name], value) for name, value in first.dump().items())
    assert not len(again["waiting"])
    assert not second.waits
    assert first.waits is False


@pytest.mark.parametrize("init", [Uniform(-1, 1, seed=3), Normal(scale=2.0, seed=3)])
def test_initial_weights_do_not_depend_on_the_number_of_servers(init: Uniform | Normal) -> None:
    whole = DenseTable(dense((1000, 5), init=init), None, 0, 1).read(None, True)
    parts = [DenseTable(dense((1000, 5), init=init), None, rank, 3).read(None, True) for rank in range(3)]
    assert np.array_equal(whole, np.concatenate(parts))
    assert abs(whole.mean()) < 0.1
    assert whole.std() == pytest.approx(2.0 if isinstance(init, Normal) else 1 / np.sqrt(3), rel=0.05)
    rows = SparseTable(sparse(5, init=init), None).read(np.arange(1000, dtype=np.int64)[::-1].copy(), False)
    assert np.array_equal(rows[::-1], whole)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("w", None, None, False, "float32", SGD(), 0.0), "table 'w': shape takes"),
        (("w", (3, 0), None, False, "float32", SGD(), 0.0), "1 or more"),
        (("w", (3,), 2, False, "float32", SGD(), 0.0), "no width"),
        (("w", (3,), None, True, "float32", SGD(), 0.0), "no shape"),
        (("w", (3,), None, False, "complex64", SGD(), 0.0), "dtype takes float16, bfloat16, float32"),
        (("w", (3,), None, False, "nonsense", SGD(), 0.0), "dtype takes"),
        (("w", (3,), None, False, "int64", SGD(), 0.0), "optimizers want a float dtype"),
        (("w", (3,), None, False, "float32", "sgd", 0.0), "optimizer takes"),
        (("w", (3,), None, False, "float32", SGD(), "zeros"), "init takes a number"),
        ((3, (3,), None, False, "float32", SGD(), 0.0), "name must be a text"),
    ],
)
def test_declarations_that_cannot_be_meant(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(TableError, match=message):
        TableSpec.declare(*arguments)  # type: ignore[arg-type]


def test_weights_that_are_being_sent_stay_as_they_were() -> None:
    table = DenseTable(dense((3,)), None, 0, 1)
    sent, at_once = table.read(None, stable=False), table.read(None, stable=True)
    before = at_once.__array_interface__["data"]
    table.apply(None, np.ones(3))
    assert sent.tolist() == [0, 0, 0]
    later = table.read(None, stable=False)
    assert later.tolist() == [-1, -1, -1]
    del sent, at_once
    place = later.__array_interface__["data"]
    assert place != before
    del later
    table.apply(array([1]), np.ones(1))
    assert table.read(None, stable=False).__array_interface__["data"] == place  # nobody sends them: no copy
    assert table.read(None, stable=False).tolist() == [-1, -2, -1]
