"""Files that change or vanish between planning and reading."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow
import pyarrow.parquet
import pytest

from paibook.data.splits import FileSplit, file_splits, records
from paibook.errors import DataError


def read(splits: list[FileSplit]) -> list[Any]:
    return [record for split in splits for record in records(split)]


@pytest.fixture
def far() -> Iterator[Any]:
    fs = fsspec.filesystem("memory")
    yield fs
    fs.rm("/far", recursive=True)


def test_an_unchanged_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    assert read(file_splits([str(tmp_path)], 1)) == ["one"]


@pytest.mark.parametrize("suffix", ["txt", "csv", "jsonl", "parquet"])
def test_a_file_that_grew_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), path)
    else:
        path.write_text('"a"\n"b"\n')
    splits = file_splits([str(path)], 1)
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(b'{"broken')
    with pytest.raises(DataError, match=rf"a\.{suffix} changed while .* \(was {size:,} bytes, is {size + 8:,}\)"):
        read(splits)
    with pytest.raises(DataError, match=rf"a\.{suffix} changed"):
        list(splits[0].tables())


def test_a_file_written_again_at_the_same_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\n")
    splits = file_splits([str(path)], 1)
    path.write_text("two\n")
    os.utime(path, (1, 1))
    with pytest.raises(DataError, match=r"was and is 4 bytes, but it was written again"):
        read(splits)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("some words\n" * 200_000)
    (split,) = file_splits([str(path)], 1, split_bytes=1 << 30)
    batches = split.batches()
    next(batches)
    with path.open("a") as file:
        file.write("more\n")
    with pytest.raises(DataError, match="changed while the run was reading it"):
        list(batches)


def test_a_file_that_vanished_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\n")
    splits = file_splits([str(path)], 1)
    path.unlink()
    with pytest.raises(DataError, match=r"a\.txt vanished while the run was reading it \(it was 4 bytes\)"):
        read(splits)


def test_files_elsewhere_are_watched_too(far: Any) -> None:
    far.pipe("/far/a.txt", b"one\n")
    far.pipe("/far/b.csv", b"a\n" + b"1\n" * 100)
    splits = file_splits(["memory://far"], 1, split_bytes=50)
    assert read(splits) == ["one"] + [{"a": "1"}] * 100
    far.pipe("/far/a.txt", b"two\n")
    with pytest.raises(DataError, match=r"memory://.*a\.txt changed while"):
        read(splits)
    far.rm("/far/a.txt")
    with pytest.raises(DataError, match=r"memory://.*a\.txt vanished while"):
        read(splits)
