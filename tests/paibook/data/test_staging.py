"""Datasets appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from paibook.data import staging as stagings
from paibook.data.dataset import Dataset
from paibook.data.parts import Part
from paibook.data.staging import Staging, check_target, commit_all
from paibook.errors import DataError, PlanError


def write(staging: Staging, number: int, records: list[Any]) -> Part:
    writer = staging.writer(number)
    sink = writer.open()
    sink.add(records)
    (part,) = sink.close()
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
        monkeypatch.setattr(stagings, "_exchange", lambda one, other: False)
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


def enter_and_die(target: Path, chunks: list[list[Any]], overwrite: bool = False) -> tuple[Staging, list[Part]]:
    """As a run whose notebook is killed before it commits."""
    staging = Staging(target, "run1", overwrite).__enter__()
    return staging, [write(staging, number, records) for number, records in enumerate(chunks)]


def test_a_resumed_run_commits_what_was_written(tmp_path: Path) -> None:
    target = tmp_path / "out.parquet"
    _, parts = enter_and_die(target, [[{"a": 1}], [{"a": 2}]])
    parts = pickle.loads(pickle.dumps(parts))
    with pytest.raises(DataError, match="cannot write to"):
        Staging(target, "run1").__enter__()
    with Staging(target, "run1", resume=True) as staging:
        assert all(map(staging.holds, parts))
        result = staging.commit([*parts, write(staging, 2, [{"a": 3}])])
    assert result.read()["a"].tolist() == [1, 2, 3]
    assert os.listdir(tmp_path) == ["out.parquet"]


def test_a_run_that_died_while_it_committed(tmp_path: Path) -> None:
    target = tmp_path / "out.parquet"
    staging, parts = enter_and_die(target, [[{"a": 1}], [{"a": 2}]])
    staging._prepare(parts)
    with Staging(target, "run1", resume=True) as again:
        assert not again.shown
        assert again.commit(parts).read()["a"].tolist() == [1, 2]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_run_that_died_after_its_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool) -> None:
    if not exchange:
        monkeypatch.setattr(stagings, "_exchange", lambda one, other: False)
    target = tmp_path / "out.parquet"
    write_dataset(target, [{"a": 0}])
    staging, parts = enter_and_die(target, [[{"a": 1}], [{"a": 2}]], overwrite=True)
    first = staging.commit(parts)
    with Staging(target, "run1", overwrite=True, resume=True) as again:
        assert again.shown
        assert all(map(again.holds, parts))
        assert again.commit(parts) == first
    assert first.read()["a"].tolist() == [1, 2]
    assert os.listdir(tmp_path) == ["out.parquet"]


def test_a_run_that_died_between_two_renames(tmp_path: Path) -> None:
    target = tmp_path / "out.parquet"
    old = write_dataset(target, [{"a": 0}])
    staging, parts = enter_and_die(target, [[{"a": 1}]], overwrite=True)
    staging._prepare(parts)
    os.rename(target, staging.root / "old")
    with Staging(target, "run1", overwrite=True, resume=True) as again:
        assert old.read()["a"].tolist() == [0]
        assert again.commit(parts).read()["a"].tolist() == [1]


def test_a_part_that_was_cut_off_is_not_committed(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    staging, (part,) = enter_and_die(target, [[{"a": 1}, {"a": 2}]])
    os.truncate(staging.attempts / part.name, 9)
    with Staging(target, "run1", resume=True) as again:
        assert not again.holds(part)
        with pytest.raises(DataError, match=r"has 9 bytes where 18 were written"):
            again.commit([part])
    assert os.listdir(tmp_path) == []


def test_several_outputs_are_shown_together(tmp_path: Path) -> None:
    with Staging(tmp_path / "good.csv", "run1") as good, Staging(tmp_path / "bad.jsonl", "run1") as bad:
        parts = [[write(good, 0, [{"a": 1}])], [write(bad, 0, [{"b": 2}])]]
        results = commit_all([good, bad], parts)
    assert [result.read().to_dict("list") for result in results] == [{"a": [1]}, {"b": [2]}]
    assert sorted(os.listdir(tmp_path)) == ["bad.jsonl", "good.csv"]


def test_a_missing_part_of_one_output_shows_none(tmp_path: Path) -> None:
    with Staging(tmp_path / "good", "run1") as good, Staging(tmp_path / "bad", "run1") as bad:
        part = write(good, 0, [{"a": 1}])
        with pytest.raises(DataError, match="is not in"):
            commit_all([good, bad], [[part], [part]])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("exchange", [True, False])
def test_when_the_last_rename_fails_the_others_are_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(stagings, "_renameat2", lambda one, other, flags: False)
    old = write_dataset(tmp_path / "replaced", [{"a": 0}])
    names = ["replaced", "new", "taken"]
    with contextlib.ExitStack() as stack:
        three = [stack.enter_context(Staging(tmp_path / name, "run2", name == "replaced")) for name in names]
        parts = [[write(staging, 0, [{"a": 1}])] for staging in three]
        prepare = three[2]._prepare

        def prepare_and_lose(some: list[Part]) -> Dataset:
            found = prepare(some)
            (tmp_path / "taken").write_text("someone else's")
            return found

        monkeypatch.setattr(three[2], "_prepare", prepare_and_lose)
        with pytest.raises(DataError, match=r"taken appeared while the run was writing; it was left as it is$"):
            commit_all(three, parts)
    assert old.read()["a"].tolist() == [0]
    assert (tmp_path / "taken").read_text() == "someone else's"
    assert sorted(os.listdir(tmp_path)) == ["replaced", "taken"]


def test_an_empty_folder_that_appeared_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "out.parquet"
    with Staging(target, "run1") as staging:
        part = write(staging, 0, [{"a": 1}])
        target.mkdir()
        with pytest.raises(DataError, match="appeared while the run was writing"):
            staging.commit([part])
    assert os.listdir(target) == []


def test_the_parent_vanishes_while_the_run_is_writing(tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    parent.mkdir()
    with Staging(parent / "out.csv", "run1") as staging:
        shutil.rmtree(parent)
        with pytest.raises(DataError, match=r"cannot write the output .*out\.csv|is not there on"):
            staging.commit([])
