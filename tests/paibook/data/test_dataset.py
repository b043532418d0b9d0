"""Datasets appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from paibook.data import dataset
from paibook.data.dataset import Dataset, Staging, check_target
from paibook.data.parts import Part
from paibook.errors import DataError, PlanError


def write(staging: Staging, number: int, records: list[Any]) -> Part:
    writer = staging.writer(number)
    part = writer.write([writer.gather(records)], len(records))
    assert part is not None
    return part


def write_dataset(target: Path, records: list[Any], overwrite: bool = False) -> Dataset:
    with Staging(target, "run1", overwrite) as staging:
        return staging.commit([write(staging, 0, records)])


def fail_to_write(target: Path, overwrite: bool = False) -> None:
    with Staging(target, "run2", overwrite) as staging:
        write(staging, 0, [{"a": 3}])
        raise ZeroDivisionError


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv", ""])
def test_what_is_committed_can_be_read(tmp_path: Path, suffix: str) -> None:
    with Staging(tmp_path / f"out{suffix}", "run1") as staging:
        parts = [write(staging, n, [{"a": n, "b": "x"}, {"a": n + 10, "b": "y"}]) for n in (0, 1)]
        result = staging.commit(parts)
    assert result.read().to_dict("list") == {"a": [0, 10, 1, 11], "b": ["x", "y", "x", "y"]}
    assert (result.rows, result.bytes) == (4, sum(f.stat().st_size for f in result.path.iterdir()))
    assert "4 rows" in repr(result)
    assert os.listdir(tmp_path) == [f"out{suffix}"]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_an_empty_dataset_can_be_read(tmp_path: Path, suffix: str) -> None:
    with Staging(tmp_path / f"out{suffix}", "run1") as staging:
        assert len(staging.commit([]).read()) == 0


def test_only_returned_parts_are_committed(tmp_path: Path) -> None:
    with Staging(tmp_path / "out.parquet", "run1") as staging:
        write(staging, 0, [{"a": 1}])  # an attempt that was repeated
        kept = write(staging, 0, [{"a": 1}])
        result = staging.commit([kept])
        write_later = staging.attempts.exists()
    assert write_later
    assert [file.name for file in result.path.iterdir()] == [kept.name]


def test_a_failed_run_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        fail_to_write(tmp_path / "out.parquet")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("exchange", [True, False])
def test_overwriting_replaces_the_whole_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool) -> None:
    if not exchange:
        monkeypatch.setattr(dataset, "_exchange", lambda one, other: False)
    target = tmp_path / "out.parquet"
    write_dataset(target, [{"a": 1}, {"a": 2}])
    with Staging(target, "run2", overwrite=True) as staging:
        part = write(staging, 0, [{"a": 3}])
        assert len(pyarrow.parquet.read_table(target)) == 2  # until the new is complete the old is there
        result = staging.commit([part])
    assert result.read()["a"].tolist() == [3]
    assert os.listdir(tmp_path) == ["out.parquet"]


def test_the_old_data_survives_a_failed_overwrite(tmp_path: Path) -> None:
    target = tmp_path / "out.parquet"
    old = write_dataset(target, [{"a": 1}])
    with pytest.raises(ZeroDivisionError):
        fail_to_write(target, overwrite=True)
    assert old.read()["a"].tolist() == [1]
    assert os.listdir(tmp_path) == ["out.parquet"]


def test_an_output_that_appeared_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "out.parquet"
    with Staging(target, "run1") as staging:
        part = write(staging, 0, [{"a": 1}])
        target.write_text("someone else's")
        with pytest.raises(DataError, match="appeared while the run was writing"):
            staging.commit([part])
    assert target.read_text() == "someone else's"


def test_a_worker_that_does_not_share_the_folder(tmp_path: Path) -> None:
    staging = Staging(tmp_path / "out.parquet", "run1")
    with pytest.raises(DataError, match="file system that the notebook and all workers share"):
        write(staging, 0, [{"a": 1}])
    with staging, pytest.raises(DataError, match=r"is not in .* here"):
        staging.commit([Part("part-elsewhere.parquet", 0, 1, None)])


def test_targets_are_checked(tmp_path: Path) -> None:
    (tmp_path / "out.parquet").mkdir()
    with pytest.raises(DataError, match=r"out\.parquet exists.*--overwrite"):
        check_target(str(tmp_path / "out.parquet"), overwrite=False)
    assert check_target(str(tmp_path / "out.parquet"), overwrite=True) == tmp_path / "out.parquet"
    with pytest.raises(DataError, match="nowhere of the output 'x' does not exist"):
        check_target(str(tmp_path / "nowhere" / "x"), overwrite=False)
    with pytest.raises(PlanError, match=r"ends in \.parquet, \.jsonl or \.csv"):
        check_target(str(tmp_path / "out.xlsx"), overwrite=False)
    with pytest.raises(DataError, match="all workers share"):
        check_target("s3://bucket/out.parquet", overwrite=False)


def test_a_record_that_is_no_json_is_shown(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be written as JSON .*\{1, 2\}"):
        write_dataset(tmp_path / "out.jsonl", [{1, 2}])
