"""How far a run has come, written by one process and read by another."""

from __future__ import annotations

import time
from pathlib import Path

from paibook.progress_log import FILE, ProgressLog, ProgressTail
from paibook.runtimes.contract import Progress


def until_written(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_latest_of_each_stage_is_read_once(tmp_path: Path) -> None:
    log, seen = ProgressLog(tmp_path), list[Progress]()
    tail = ProgressTail(tmp_path, seen.append)
    tail.read()
    for done in range(5):
        log.take(Progress("map", done, 5, details={"records": 7.0}, picture={"model": "mapreduce"}))
    until_written(tmp_path / FILE)
    tail.read()
    tail.read()
    assert seen == [Progress("map", 4, 5, details={"records": 7.0}, picture={"model": "mapreduce"})]
    log.take(Progress("reduce", 1, 2))
    log.close()
    tail.read()
    assert seen[1:] == [Progress("reduce", 1, 2)]


def test_a_run_that_ends_at_once_writes_nothing(tmp_path: Path) -> None:
    log = ProgressLog(tmp_path)
    log.take(Progress("map", 1, 1))
    log.close()
    log.take(Progress("map", 1, 1))
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    log = ProgressLog(tmp_path)
    log.take(Progress("map", 1, 2))
    until_written(tmp_path / FILE)
    log.take(Progress("map", 2, 2, details={"records": object()}))  # type: ignore[dict-item]
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
