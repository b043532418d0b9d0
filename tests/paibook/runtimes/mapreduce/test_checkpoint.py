"""The log of finished tasks, wherever the notebook died."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from paibook.runtimes.mapreduce.checkpoint import Checkpoint
from paibook.runtimes.mapreduce.report import Report
from paibook.runtimes.mapreduce.steps import Done


def reopened(folder: Path) -> Checkpoint:
    checkpoint = Checkpoint(folder)
    checkpoint._read_log()
    return checkpoint


def done(value: Any) -> Done:
    return Done(value, Report())


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_an_entry_cut_short_is_not_in_the_way_of_later_ones(tmp_path: Path, cut: int) -> None:
    first = Checkpoint(tmp_path)
    first.create()
    first.add("map", 0, done("kept"))
    log = first.folder / "finished"
    whole = log.stat().st_size
    entry = pickle.dumps(("map", 1, done("é" * 50)), protocol=5)
    with log.open("ab") as file:
        file.write(entry[: min(cut, len(entry) - 1)])
    second = reopened(tmp_path)
    assert list(second.finished("map")) == [0]
    assert log.stat().st_size == whole
    second.add("map", 2, done("later"))
    assert {number: found.value for number, found in reopened(tmp_path).finished("map").items()} == {
        0: "kept",
        2: "later",
    }
