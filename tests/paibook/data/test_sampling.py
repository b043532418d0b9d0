"""Samples: of the asked size, the same for a seed, unbiased, never empty, and read from little of a large file."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from paibook.data.sampling import sampled
from paibook.data.splits import file_splits, records
from paibook.data.variables import pending_splits, variable_splits


def read(splits: Any) -> list[Any]:
    return [record for split in pickle.loads(pickle.dumps(splits)) for record in records(split)]


def write(folder: Path, suffix: str, rows: int) -> Path:
    path = folder / f"a.{suffix}"
    if suffix == "parquet":
        pyarrow.parquet.write_table(pyarrow.table({"i": range(rows)}), path, row_group_size=rows // 200)
    elif suffix == "csv":
        path.write_text("i,text\n" + "".join(f'{i},"{"x" * 40}\n{"y" * 40}"\n' for i in range(rows)))
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps({"i": i, "text": "x" * 80}) + "\n" for i in range(rows)))
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_share_of_a_large_file(tmp_path: Path, suffix: str) -> None:
    rows = 200_000
    splits = file_splits([str(write(tmp_path, suffix, rows))], 2)
    some = sampled(splits, 0.1, seed=3)
    found = [int(record["i"]) for record in read(some)]
    assert 0.7 * 0.1 * rows < len(found) < 1.3 * 0.1 * rows
    assert found == sorted(set(found))
    assert abs(sum(found) / len(found) / rows - 0.5) < 0.1
    assert [int(record["i"]) for record in read(sampled(splits, 0.1, seed=3))] == found
    assert [int(record["i"]) for record in read(sampled(splits, 0.1, seed=4))] != found
    kept = sum(table.num_rows for split in some for table in split.tables())
    assert 0.7 * 0.1 * rows < kept < 1.3 * 0.1 * rows


def test_little_is_read_of_a_large_file(tmp_path: Path) -> None:
    path = write(tmp_path, "jsonl", 600_000)
    some = sampled(file_splits([str(path)], 2), 0.01)
    reach = sum(piece.stop - piece.start for split in some for piece in split.parts)
    assert reach < 0.2 * path.stat().st_size
    assert 3_000 < len(read(some)) < 9_000


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_every_record_has_the_same_chance(tmp_path: Path, suffix: str) -> None:
    splits = file_splits([str(write(tmp_path, suffix, 400))], 2)
    counts = [0] * 400
    for seed in range(100):
        for record in read(sampled(splits, 0.3, seed)):
            counts[int(record["i"])] += 1
    # Each is drawn 30 times of 100 with a deviation of 4.6: of 400 the farthest lies within five of these.
    assert min(counts) > 7
    assert max(counts) < 53
    assert abs(sum(counts) / 400 - 30) < 1.5


@pytest.mark.parametrize("rows", [1, 3])
def test_a_sample_of_something_is_not_empty(tmp_path: Path, rows: int) -> None:
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.txt").write_text("word\n" * rows)
    for seed in range(20):
        some = sampled(file_splits([str(tmp_path)], 1), 1e-6, seed)
        assert read(some) == ["word"]
        assert [row for split in some for table in split.tables() for row in table.to_pylist()] == [{"line": "word"}]


def test_lines_longer_than_any_block(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * 20_000_000 + "\n")
    assert [len(line) for line in read(sampled(file_splits([str(tmp_path)], 2), 0.01))] == [20_000_000]


def test_of_nothing_there_is_a_sample_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    assert read(sampled(file_splits([str(tmp_path)], 1), 0.5)) == []
    assert sampled([], 0.5) == []


def test_all_is_a_sample(tmp_path: Path) -> None:
    splits = file_splits([str(write(tmp_path, "csv", 20_000))], 2)
    assert read(sampled(splits, 1)) == read(splits)


def test_variables_and_collections_are_sampled(tmp_path: Path) -> None:
    found = read(sampled(variable_splits("v", list(range(10_000)), 2), 0.1))
    assert 800 < len(found) < 1200
    assert read(sampled(variable_splits("v", [7], 2), 0.001)) == [7]
    some = sampled(pending_splits("bag", ["future 0", "future 1"]), 0.5)
    assert [split.pending for split in some] == ["future 0", "future 1"]
    sent = [pickle.loads(pickle.dumps(split)).with_value(range(1000)) for split in some]
    assert [split.pending for split in sent] == [None, None]
    assert 900 < sum(len(batch.records) for split in sent for batch in split.batches()) < 1100


def test_places_are_those_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "jsonl", 2000)
    (split,) = sampled(file_splits([str(path)], 1, split_bytes=1 << 30), 0.01)
    found = [(batch.place(i), record["i"]) for batch in split.batches() for i, record in enumerate(batch.records)]
    assert found
    assert [place for place, _ in found] == [f"{path}, line {number + 1}" for _, number in found]
