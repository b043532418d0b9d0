"""Shards of what is in memory: nothing lost, nothing doubled, at any size and number of ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paibook.data.shards import Shard, deal, epoch_order, remaining
from paibook.errors import DataError, PlanError

totals, ranks = st.integers(0, 200), st.integers(1, 9)
epochs = st.none() | st.integers(0, 5)


@given(total=totals, size=ranks, seed=st.integers(0, 9), epoch=epochs)
def test_every_sample_is_one_ranks(total: int, size: int, seed: int, epoch: int | None) -> None:
    parts = [deal(epoch_order(total, seed, epoch), rank, size) for rank in range(size)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(total))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(total=totals, size=ranks, epoch=epochs, equal=st.sampled_from([True, "drop", "pad"]))
def test_equal_parts_drop_or_pad_fewer_than_ranks(total: int, size: int, epoch: int | None, equal: Any) -> None:
    parts = [deal(epoch_order(total, 0, epoch), rank, size, equal) for rank in range(size)]
    dealt = np.concatenate(parts)
    assert len(set(map(len, parts))) == 1
    assert abs(len(dealt) - total) < size
    if equal == "pad":
        assert set(dealt.tolist()) == set(range(total))
    else:
        assert len(set(dealt.tolist())) == len(dealt)


@given(data=st.data(), total=totals, sizes=st.lists(ranks, min_size=1, max_size=4), epoch=epochs)
def test_an_epoch_goes_on_with_other_numbers_of_ranks(data: Any, total: int, sizes: list[int], epoch: Any) -> None:
    order, seen, history = epoch_order(total, 3, epoch), [], []
    for size in sizes:
        parts = [deal(order, rank, size) for rank in range(size)]
        progress = [data.draw(st.integers(0, len(part))) for part in parts]
        seen += [sample for part, done in zip(parts, progress, strict=True) for sample in part[:done].tolist()]
        history.append(progress)
        order = remaining(order, progress)
    assert sorted([*seen, *order.tolist()]) == list(range(total))
    shard = Shard(np.arange(total), 0, 1, seed=3)
    assert shard.indices(epoch, history).tolist() == order.tolist()


@given(data=st.data(), total=totals, size=ranks, equal=st.sampled_from([True, "pad"]))
def test_what_equal_parts_leave_is_dealt_again(data: Any, total: int, size: int, equal: Any) -> None:
    order = epoch_order(total, 0, 1)
    parts = [deal(order, rank, size, equal) for rank in range(size)]
    progress = [data.draw(st.integers(0, len(part))) for part in parts]
    seen = {sample for part, done in zip(parts, progress, strict=True) for sample in part[:done].tolist()}
    left = remaining(order, progress, equal).tolist()
    assert sorted([*seen, *left]) == list(range(total))


def test_epochs_differ_and_repeat() -> None:
    parts = [[Shard(list(range(40)), rank, 2).epoch(n) for n in (0, 1, 0)] for rank in range(2)]
    for first, second, again in parts:
        assert first == again != second
    assert Shard(list(range(40)), 0, 2, seed=1).epoch(0) != parts[0][0]


def sources() -> dict[str, Any]:
    torch = pytest.importorskip("torch")
    values = np.arange(7) * 10
    return {
        "array": values,
        "matrix": np.stack([values, values], axis=1),
        "tensor": torch.from_numpy(values),
        "frame": pd.DataFrame({"a": values}),
        "series": pd.Series(values),
        "table": pyarrow.table({"a": values}),
        "list": values.tolist(),
        "iterator": range(0, 70, 10),
        "dataset": torch.utils.data.TensorDataset(torch.from_numpy(values)),
        "sparse": pytest.importorskip("scipy.sparse").coo_matrix(values[:, None]),
        "polars": pytest.importorskip("polars").DataFrame({"a": values}),
        "pair": (values, values.tolist()),
        "named": {"x": values, "y": pd.Series(values)},
    }


def numbers(part: Any) -> list[int]:
    """The samples of a part, whatever its form."""
    if isinstance(part, (tuple, dict)):
        forms = [numbers(form) for form in (part.values() if isinstance(part, dict) else part)]
        assert forms[0] == forms[1]
        return forms[0]
    if isinstance(part, pyarrow.Table):
        return part["a"].to_pylist()
    if type(part).__module__.startswith("polars"):
        return part["a"].to_list()
    if hasattr(part, "toarray"):
        part = part.toarray()
    if type(part).__name__ == "Subset":
        return [int(sample[0]) for sample in part]
    array = np.asarray(part.numpy() if hasattr(part, "detach") else part)
    return (array[:, 0] if array.ndim == 2 else array).tolist()


@pytest.mark.parametrize("name", sources())
def test_each_form_gives_its_own(name: str) -> None:
    source = sources()[name]
    shards = [Shard(source, rank, 3) for rank in range(3)]
    assert [numbers(shard.data) for shard in shards] == [[0, 10], [20, 30], [40, 50, 60]]
    assert [len(shard) for shard in shards] == [2, 2, 3]
    epoch = [numbers(shard.epoch(4)) for shard in shards]
    assert sorted(sample for part in epoch for sample in part) == list(range(0, 70, 10))
    assert epoch != [numbers(shard.data) for shard in shards]
    kind = {"iterator": list, "dataset": pytest.importorskip("torch").utils.data.Subset}.get(name, type(source))
    if name != "sparse":
        assert isinstance(shards[0].data, kind)
    if name in ("array", "list", "series"):
        assert list(shards[1]) == [20, 30]


def test_a_part_of_an_array_is_a_view() -> None:
    array = np.arange(10)
    assert np.shares_memory(Shard(array, 1, 2).data, array)


def test_what_cannot_be_dealt_is_refused() -> None:
    with pytest.raises(DataError, match=r"same number of samples; these have \[3, 2\]"):
        Shard((np.zeros(3), [1, 2]), 0, 2)
    with pytest.raises(DataError, match="cannot be iterated"):
        Shard(7, 0, 2)
    with pytest.raises(PlanError, match="rank 2, size 2"):
        Shard([1], 2, 2)
    with pytest.raises(PlanError, match="'pad' or False; got 'trim'"):
        Shard([1], 0, 2, "trim")  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="rank 1 of 2 had 2 samples; it cannot have done 3"):
        remaining(np.arange(4), [0, 3])
    torch = pytest.importorskip("torch")
    stream = type("Stream", (torch.utils.data.IterableDataset,), {"__iter__": lambda self: iter([1])})()
    with pytest.raises(DataError, match="IterableDataset has not"):
        Shard(stream, 0, 2)
