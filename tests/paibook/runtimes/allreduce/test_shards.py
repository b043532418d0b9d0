"""``pai.shard`` in cells: it knows its rank, and files are read in parts by the ranks."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paibook.comms.threads import ThreadCommunicator, ThreadGroup
from paibook.errors import PlanError, UserCodeError
from paibook.runtimes.shards import FileShard, shard


def write(folder: Path, format: str, rows: int = 5000) -> str:
    """A file of numbered rows; its path."""
    path = folder / f"a.{format}"
    table = pyarrow.table({"a": np.arange(rows), "text": ["x" * 40] * rows})
    if format == "parquet":
        pyarrow.parquet.write_table(table, path, row_group_size=700)
    elif format == "csv":
        path.write_text("a,text\n" + "".join(f'{i},"{"x" * 40}\n"\n' for i in range(rows)))
    elif format == "jsonl":
        path.write_text("".join(f'{{"a": {i}, "text": "{"x" * 40}"}}\n' for i in range(rows)))
    else:
        path.write_text("".join(f"{i} 1:0.5 {i + 2}:1\n" for i in range(rows)))
    return str(path)


CELL = """
part = pai.shard(path, equal=equal)
column = "label" if path.endswith("libsvm") else "a"
first = [int(a) for a in part.data[column].to_pylist()]
epoch = [int(a) for a in part.epoch(1)[column].to_pylist()]
first, epoch, len(part)
"""


@pytest.mark.parametrize("format", ["parquet", "csv", "jsonl", "libsvm"])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_files_are_dealt_out_whole(inline: Any, tmp_path: Path, format: str, workers: int) -> None:
    path = write(tmp_path, format)
    values = inline.run(CELL, workers, {"path": path, "equal": False}).values
    whole = [sample for rank in range(workers) for sample in values[rank][0]]
    assert whole == list(range(5000))
    epochs = [sample for rank in range(workers) for sample in values[rank][1]]
    assert sorted(epochs) == whole != epochs
    lengths = [values[rank][2] for rank in range(workers)]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize(("equal", "length"), [(True, 1), ("pad", 2)])
def test_equal_parts_of_a_file_that_cannot_be_cut(inline: Any, tmp_path: Path, equal: Any, length: int) -> None:
    path = write(tmp_path, "jsonl", 4)
    values = inline.run(CELL, 3, {"path": path, "equal": equal}).values
    assert [values[rank][2] for rank in range(3)] == [length] * 3
    dealt = [sample for rank in range(3) for sample in values[rank][0]]
    assert dealt == ([0, 1, 2] if equal is True else [0, 1, 2, 3, 0, 1])


def test_several_files_and_more_ranks_than_rows(inline: Any, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text(f"a,b\n{ord(name)},0.5\n")
    values = inline.run("p = pai.shard(path)\nlist(p), p.data.schema", 3, {"path": str(tmp_path / "*.csv")}).values
    assert [values[rank][0] for rank in range(3)] == [[], [{"a": 97, "b": 0.5}], [{"a": 98, "b": 0.5}]]
    assert values[0][1] == values[2][1]


@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_columns_of_files(inline: Any, tmp_path: Path, format: str) -> None:
    cell = "t = pai.shard(path, columns=['a']).data\nt.column_names, t.num_rows"
    assert inline.run(cell, 2, {"path": write(tmp_path, format, 10)}).values == {0: (["a"], 5), 1: (["a"], 5)}
    with pytest.raises(UserCodeError, match="has no column 'b'; it has: a, text"):
        inline.run("pai.shard(path, columns=['b']).data", 2)


def test_arrays_of_a_cell(inline: Any) -> None:
    cell = "x, y = pai.shard((table, table * 2), equal=True).data\nx.tolist(), y.tolist(), repr(pai.shard([1, 2, 3]))"
    values = inline.run(cell, 2, {"table": np.arange(5)}).values
    assert values[1] == ([2, 3], [4, 6], "<shard of rank 1 of 2: 2 of 3 samples>")


def test_each_rank_reads_its_own_splits_only(tmp_path: Path) -> None:
    path = write(tmp_path, "jsonl", 20_000)
    parts = [shard(path, rank=rank, size=4) for rank in range(4)]
    pieces = [piece for part in parts for split in part.splits() for piece in split.pieces]
    assert len(pieces) > 4
    assert len({piece.start for piece in pieces}) == len(pieces)
    assert sum(len(part) for part in parts) == 20_000
    weights = [sum(split.weight for split in part.splits()) for part in parts]
    assert max(weights) < 1.5 * min(weights)


@dataclasses.dataclass
class Rows:
    """A split without a file."""

    first: int
    weight: int

    def tables(self, columns: Any) -> Any:
        yield pyarrow.table({"a": np.arange(self.first, self.first + self.weight)})


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(0, 30), max_size=8),
    size=st.integers(1, 4),
    epoch=st.none() | st.integers(0, 3),
    equal=st.sampled_from([False, True, "pad"]),
)
def test_rows_are_moved_until_parts_are_even(lengths: list[int], size: int, epoch: Any, equal: Any) -> None:
    splits = [Rows(sum(lengths[:i]), length) for i, length in enumerate(lengths)]
    group = ThreadGroup(size)

    def part(rank: int) -> list[int]:
        found = FileShard(splits, rank, size, equal, 0, ThreadCommunicator(group, rank))
        table = found.data if epoch is None else found.epoch(epoch)
        return table["a"].to_pylist() if table.num_columns else []

    with ThreadPoolExecutor(size) as pool:
        parts = list(pool.map(part, range(size)))
    dealt = [sample for part in parts for sample in part]
    if equal is False:
        assert sorted(dealt) == list(range(sum(lengths)))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    else:
        assert len(set(map(len, parts))) == 1
        assert abs(len(dealt) - sum(lengths)) < size
        assert len(set(dealt)) == min(len(dealt), sum(lengths))


def test_outside_of_a_cell_one_rank_has_all() -> None:
    assert shard([1, 2, 3]).data == [1, 2, 3]
    assert shard([1, 2, 3], rank=1, size=3).data == [2]
    with pytest.raises(PlanError, match="given together"):
        shard([1], rank=0)
    with pytest.raises(PlanError, match="are for files"):
        shard([1], format="csv")


def test_equal_parts_of_files_need_comm(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="equal parts of files need comm"):
        shard(write(tmp_path, "csv", 4), rank=0, size=2, equal=True)


def test_a_bad_file_is_named_on_every_rank(inline: Any, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(UserCodeError, match=r"a.jsonl, line 2: not one JSON value"):
        inline.run("pai.shard(path).data", 2, {"path": str(tmp_path / "a.jsonl")})
    with pytest.raises(UserCodeError, match="there is no file"):
        inline.run("pai.shard('/nowhere.csv')", 2)
