"""MapReduce on real worker processes, some of which die."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import distributed
import pytest

from paibook.errors import RunCancelled, UserCodeError
from paibook.runtimes.mapreduce.driver import Driver

pytestmark = pytest.mark.slow

DATA = Path(os.environ.get("PAIBOOK_DATA", Path(__file__).resolve().parents[5] / "shared" / "data"))

COUNT = """
def map(record):
    for word in record.split():
        yield word, 1

def combine(key, values):
    yield key, sum(values)

def reduce(key, values):
    yield {"word": key, "n": sum(values)}
"""

# The first process to come here tells its number and waits to be killed; the next one passes.
WAIT = """
import os, time
def wait_for_the_end():
    try:
        open(marker + ".taken", "x").close()
    except FileExistsError:
        return
    with open(marker + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(file.name, marker)
    time.sleep(600)
"""
WAIT_IN = {
    "map": ("for word in", "if 'w7' in record: wait_for_the_end()\n    for word in"),
    "reduce": ("yield {", "if key == 'w7': wait_for_the_end()\n    yield {"),
}
LINES = [f"w{i % 50} w{i % 7}" for i in range(500)]
COUNTS = Counter(word for line in LINES for word in line.split())


def appeared(path: Path) -> bool:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return path.exists()


def test_the_cluster_agrees_with_one_process(on_cluster: Any, tmp_path: Path) -> None:
    expected = [{"word": word, "n": COUNTS[word]} for word in sorted(COUNTS)]
    assert on_cluster.over(COUNT, LINES) == expected
    result = on_cluster.over(COUNT, LINES, out=str(tmp_path / "out.parquet"))
    assert result.read().sort_values("word").to_dict("records") == expected
    assert [(p.stage, p.done, p.total) for p in on_cluster.progress][-1] == ("reduce", 4, 4)


def test_what_tasks_say_comes_back(on_cluster: Any) -> None:
    source = COUNT.replace("for word in", "print('got', record)\n    for word in")
    on_cluster.over(source.replace("yield {", "pai.log(step=1, n=len(values))\n    yield {"), ["a", "b c"])
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and sum(e.kind == "metric" for e in on_cluster.events) < 2:
        time.sleep(0.01)
    said = "".join(event.data for event in on_cluster.events if event.kind == "stdout")
    assert {"got a", "got b c"} <= set(said.splitlines())


def test_classes_of_the_cell_meet_across_processes(on_cluster: Any) -> None:
    source = """
    from dataclasses import dataclass
    @dataclass(frozen=True)
    class Point:
        x: int
    def map(record):
        yield Point(record % 3), record
    def reduce(key, values):
        yield key, isinstance(key, Point), len(values)
    """
    found = on_cluster.over(source, range(30))
    assert sorted((key.x, same, count) for key, same, count in found) == [(i, True, 10) for i in range(3)]


def test_a_users_error_names_record_and_line(on_cluster: Any, tmp_path: Path) -> None:
    path = tmp_path / "numbers.txt"
    path.write_text("".join(f"{i}\n" for i in range(50_000)) + "oops\n" + "1\n" * 50_000)
    source = "def map(record):\n    yield int(record) % 3, 1\ndef reduce(key, values):\n    yield sum(values)"
    with pytest.raises(UserCodeError) as caught:
        on_cluster(source, path)
    assert re.search(r"map task \d, .*numbers\.txt, line 50001$", caught.value.where)
    assert 'File "Cell In[7]", line 3, in map' in caught.value.traceback


@pytest.mark.timeout(60)
def test_a_result_that_cannot_be_fetched_ends_the_run(on_cluster: Any) -> None:
    source = """
    class Name(str):
        def __reduce__(self):
            return eval, ("1 / 0",)
    def map(record):
        pai.task().counters[Name("seen")] += 1
        yield record % 3, 1
    def reduce(key, values):
        yield key, sum(values)
    """
    message = r"map task \d: .*its result cannot be fetched: ZeroDivisionError: division by zero"
    with pytest.raises(UserCodeError, match=message):
        on_cluster.over(source, range(10))
    assert on_cluster.over(source.replace('Name("seen")', '"seen"'), range(10)) == [(0, 4), (1, 3), (2, 3)]


@pytest.mark.parametrize("stage", ["map", "reduce"])
def test_a_killed_worker_costs_time_not_records(on_cluster: Any, tmp_path: Path, stage: str) -> None:
    marker = tmp_path / "pid"
    found: dict[str, Any] = {}
    source = WAIT + COUNT.replace(*WAIT_IN[stage])

    def work() -> None:
        found["result"] = on_cluster.over(
            source, LINES, variables={"marker": str(marker)}, push=("marker",), out=str(tmp_path / "out.parquet")
        )

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert appeared(marker)
    os.kill(int(marker.read_text()), signal.SIGKILL)
    thread.join(60)
    frame = found["result"].read()
    assert len(frame) == found["result"].rows == len(COUNTS)
    assert dict(zip(frame["word"], frame["n"], strict=True)) == COUNTS
    assert not list(tmp_path.glob(".out*"))


def test_cancelling_frees_the_workers(on_cluster: Any, tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    source = WAIT.replace("time.sleep(600)", "[time.sleep(0.02) for _ in range(30_000)]") + COUNT.replace(
        *WAIT_IN["map"]
    )
    plan = on_cluster.plan(source, {"variable": "items"}, push=("marker",), out=str(tmp_path / "out.parquet"))
    context = on_cluster.context({"items": LINES, "marker": str(marker)})
    threading.Thread(target=lambda: appeared(marker) and context.cancel(), daemon=True).start()
    with pytest.raises(RunCancelled):
        Driver().run(plan, on_cluster.cluster, context)
    assert not list(tmp_path.glob("*out*"))
    assert on_cluster.over(COUNT, ["a"]) == [{"word": "a", "n": 1}]  # the workers take the next run


def test_partitions_of_a_collection_are_mapped_where_they_lie(on_cluster: Any) -> None:
    client = on_cluster.cluster._client
    bag = pytest.importorskip("dask.bag").from_sequence(range(12), npartitions=12)
    bag = client.persist(bag.map(lambda n: b"%d" % n * 1_000_000))
    assert not any(future.exception() for future in distributed.futures_of(bag))  # they are there now
    holders = client.who_has(bag)
    assert len({worker for (worker,) in holders.values()}) == 2
    source = """
    import distributed
    def map(record):
        yield distributed.get_worker().address, len(record)
    def reduce(key, values):
        yield key, len(values)
    """
    found = dict(on_cluster.over(source, bag))
    assert found == Counter(worker for (worker,) in holders.values())


def test_real_posts_are_counted_right(on_cluster: Any) -> None:
    path = DATA / "20news-test.jsonl.gz"
    if not path.exists():
        pytest.skip(f"the data set {path.name} is not here; set PAIBOOK_DATA to its folder")
    with gzip.open(path, "rt") as file:
        expected = Counter(json.loads(line)["group"] for line in file)
    source = "def map(record):\n    yield record['group'], 1\ndef reduce(key, values):\n    yield key, len(values)"
    assert dict(on_cluster(source, path)) == expected
