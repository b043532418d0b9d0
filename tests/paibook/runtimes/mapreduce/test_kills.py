"""``kill -9`` at any moment, of one worker, of all but one, of all: the same output, only lost work is done again."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paibook.clusters.dask_cluster import EmbeddedCluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

WORKERS = 3
# The first process to come to a place tells its number and waits to be killed; those after it pass. Each task leaves a
# file for each time that it was started.
CELL = """
import os, time, uuid
import paibook.data.sinks as sinks

def come(here):
    if here != place:
        return
    try:
        open(os.path.join(folder, "taken"), "x").close()
    except FileExistsError:
        return
    with open(os.path.join(folder, "pid.new"), "w") as file:
        file.write(str(os.getpid()))
    os.rename(file.name, os.path.join(folder, "pid"))
    time.sleep(600)

class Value:
    def __init__(self, number):
        self.number = number
    def __reduce__(self):
        if self.number == 400:
            come("shuffle")
        return Value, (self.number,)

def closing(close):
    def close_(self):
        come("write")
        return close(self)
    return close_

def setup(task):
    name = f"{task.stage}-{task.number}"
    open(os.path.join(folder, f"started.{name}.{uuid.uuid4().hex}"), "x").close()
    if task.stage == "reduce" and not hasattr(sinks.PartSink, "is_watched"):
        sinks.PartSink.is_watched, sinks.PartSink.close = True, closing(sinks.PartSink.close)

def map(number):
    if number == 400:
        come("map")
    time.sleep(0.001)
    yield number % 20, Value(number)

def reduce(key, values):
    if key == 7:
        come("reduce")
    for value in values:
        yield {"key": key, "number": value.number}
"""
COUNT = 1000


@pytest.fixture(scope="module")
def three() -> Iterator[Any]:
    cluster = EmbeddedCluster(WORKERS)
    cluster.start()
    yield cluster
    cluster.close()


def appeared(path: Path) -> bool:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return path.exists()


def pids(cluster: Any) -> list[int]:
    return [nanny.pid for nanny in cluster._client.cluster.workers.values() if nanny.pid]


@pytest.mark.parametrize("killed", [1, WORKERS - 1, WORKERS])
@pytest.mark.parametrize("place", ["map", "shuffle", "reduce", "write"])
def test_only_lost_work_is_done_again(run: Any, three: Any, tmp_path: Path, place: str, killed: int) -> None:
    run.cluster = three
    assert all_are_there(three)
    folder = tmp_path / "marks"
    folder.mkdir()
    variables = {"items": range(COUNT), "place": place, "folder": str(folder)}
    found: dict[str, Any] = {}

    def work() -> None:
        options = {"out": str(tmp_path / "out.parquet"), "backups": False, "reducers": 6}
        found["result"] = run(CELL, {"variable": "items"}, variables=variables, push=("place", "folder"), **options)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert appeared(folder / "pid")
    time.sleep(0.3)  # the others go on, so that there is finished work that must not be lost
    first = int((folder / "pid").read_text())
    victims = [first, *(pid for pid in pids(three) if pid != first)][:killed]
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    thread.join(60)
    frame = found["result"].read()
    assert sorted(zip(frame["key"], frame["number"], strict=True)) == sorted((n % 20, n) for n in range(COUNT))
    assert sorted(path.name for path in tmp_path.glob("*out*")) == ["out.parquet"]
    assert sorted(path.name for path in tmp_path.glob(".out*")) == []
    started = Counter(path.name.split(".")[1] for path in folder.glob("started.*"))
    tasks = {stage["name"]: stage["tasks"] for stage in run.summary["stages"]}
    assert set(started) == {f"{name}-{number}" for name, count in tasks.items() for number in range(count)}
    # A worker is at one task at a time, and may have ended another whose result had not arrived yet.
    again = {name: count - 1 for name, count in started.items() if count > 1}
    assert 1 <= sum(again.values()) <= 2 * killed, again
    assert all(name.startswith("map" if place in ("map", "shuffle") else "reduce") for name in again), again


def all_are_there(cluster: Any) -> bool:
    deadline = time.monotonic() + 60
    while cluster.status().workers < WORKERS and time.monotonic() < deadline:
        time.sleep(0.05)
    return cluster.status().workers == WORKERS
