"""The same runs on real processes: right answers, whoever is killed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import psutil
import pytest

from paibook.clusters.contract import Cluster, Event
from paibook.errors import RankLost, RunCancelled, RunError, UserCodeError
from paibook.resources import Resources
from paibook.runtimes.ps.driver import Driver

pytestmark = pytest.mark.slow

CELL = """
    import numpy as np, time
    target = np.arange(10.0)

    def train(ps):
        w = ps.table("w", shape=10, dtype="float64", optimizer=pai.SGD(lr=0.1))
        for epoch in ps.clocks():
            w.push(w.pull() - target)
            pai.log(step=epoch, loss=epoch)
            if epoch == 5:
                print("running", flush=True)
            if rank == hang_rank and epoch == 6:
                time.sleep(1000)
        return epoch
"""


def once(act: Callable[[], None]) -> Callable[[Event], None]:
    """Do something, in a thread of its own, when the first rank says that it runs."""
    said = threading.Event()

    def on_event(event: Event) -> None:
        if event.kind == "stdout" and "running" in event.data and not said.is_set():
            said.set()
            threading.Thread(target=act, daemon=True).start()

    return on_event


def kill(cluster: Cluster, role: str, rank: int = 0) -> None:
    os.kill(next(r.pid for r in cluster.status().ranks if (r.role, r.rank) == (role, rank)), signal.SIGKILL)


def train(real: Any, **options: Any) -> Any:
    result = real.run(CELL, real.context(hang_rank=-1), **{"until": "epoch >= 8", **options})
    target = np.arange(10.0)
    return result, np.abs(result.tables["w"] - target * (1 - 0.7**8)).max()


def test_right_on_processes_and_metrics_arrive(real: Any) -> None:
    result, error = train(real)
    assert error < 1e-6
    assert result.returned == (7, 7, 7)
    assert {metric.rank for metric in real.metrics} == {0, 1, 2}
    result = real.run(CELL, real.context(hang_rank=-1), until="loss > 50", consistency="asp")
    assert result.reason.startswith("--until loss > 50 (loss = ")
    with pytest.raises(UserCodeError, match=r"rank \d: ZeroDivisionError"):
        real.run(CELL + "\n    train = lambda ps: 1 / 0\n", real.context(hang_rank=-1))


def test_until_stops_at_the_first_clock_at_which_it_holds(real: Any) -> None:
    cell = CELL.replace("loss=epoch", "loss=np.square(w.pull() - target).mean() * (1 + rank)")
    target, weights, clock, mean = np.arange(10.0), np.zeros(10), 0, np.inf
    while mean >= 0.01:
        mean = 2 * np.square(weights - target).mean()  # over ranks 0, 1, 2: 1 + rank is 2 on average
        weights -= 0.1 * 3 * (weights - target)
        clock += 1
    result = real.run(cell, real.context(hang_rank=-1), until="loss < 0.01")
    assert result.clock == clock
    assert result.returned == (clock - 1,) * 3
    assert np.abs(result.tables["w"] - weights).max() < 1e-9


@pytest.mark.parametrize("role", ["worker", "server", "coordinator"])
@pytest.mark.parametrize("consistency", ["bsp", "asp"])
def test_a_killed_process_is_replaced(real: Any, role: str, consistency: str) -> None:
    context = real.context(once(lambda: kill(real.cluster, role)), hang_rank=-1)
    cell = CELL.replace("w.push(", "time.sleep(0.02); w.push(")  # there is to be something left to do
    result = real.run(cell, context, consistency=consistency, until="epoch >= 50")
    said = "".join(event.data for event in real.events if event.kind == "stderr")
    assert re.search(f"{role} rank 0 was lost: .*SIGKILL.*it is replaced", said)
    assert result.clock >= 50
    assert np.abs(result.tables["w"] - np.arange(10.0)).max() < 1e-5
    if consistency == "bsp":
        assert result.clock == 50
        assert np.abs(result.tables["w"] - np.arange(10.0) * (1 - 0.7**50)).max() < 1e-9


@pytest.mark.parametrize("consistency", ["bsp", "asp"])
def test_primaries_are_spread_again_and_every_push_counts_once(real: Any, consistency: str) -> None:
    cell = """
        import os

        def update(weight, grad):
            return weight + grad

        def train(ps):
            w, pushed = ps.table("w", shape=6, dtype="int64"), 0
            for clock in ps.clocks():
                seen = w.pull()
                assert (seen >= pushed).all(), (seen, pushed)  # its own pushes, whoever answers
                w.push([1] * 6)
                pushed += 1
                if clock == 5:
                    print("running", flush=True)
                if os.path.exists(moved):
                    return pushed
    """
    primaries: list[tuple[int, ...]] = []

    def kill_and_watch() -> None:
        kill(real.cluster, "server")
        while len(primaries) < 3:  # at first, after the death, and spread again
            entries = (json.loads(line) for line in log.read_bytes().splitlines(keepends=True) if line.endswith(b"\n"))
            views = [tuple(entry["view"]["primaries"]) for entry in entries if entry["kind"] == "view"]
            primaries[:] = [found for number, found in enumerate(views) if number == 0 or found != views[number - 1]]
            time.sleep(0.02)
        time.sleep(0.1)  # so that some is done after the move
        (real.directory / "moved").touch()

    log = real.directory / "coordinator.jsonl"
    context = real.context(once(kill_and_watch), moved=str(real.directory / "moved"))
    result = real.run(cell, context, workers=2, consistency=consistency)
    assert primaries == [(0, 1), (1, 1), (0, 1)]
    assert result.tables["w"].tolist() == [sum(result.returned)] * 6
    assert sorted(shard["server"] for shard in result.shards) == [0, 1]


def test_without_replicas_a_killed_server_ends_the_run_with_its_name(real: Any) -> None:
    began = time.monotonic()
    with pytest.raises(RankLost, match=r"server rank 0 was lost: .*SIGKILL.*--replicas 1"):
        real.run(CELL, real.context(once(lambda: kill(real.cluster, "server")), hang_rank=-1), replicas=0)
    assert time.monotonic() - began < 30
    assert train(real)[1] < 1e-6  # fresh ranks in place of the lost, the others kept
    assert not [c for c in psutil.Process().children(recursive=True) if c.status() == psutil.STATUS_ZOMBIE]


def test_a_worker_that_dies_again_and_again_ends_the_run(real: Any) -> None:
    cell = CELL.replace(
        "if epoch == 5:",
        "if rank == 1 and epoch == 5:\n                import os; os._exit(7)\n            if epoch == 5:",
    )
    with pytest.raises(RankLost, match=r"worker rank 1 .*that was its death 2, and --max-restarts is 1"):
        real.run(cell, real.context(hang_rank=-1), max_restarts=1, until="epoch >= 8")


def test_cancelling_frees_sleepers_and_those_who_wait_for_them(real: Any) -> None:
    context = real.context(once(lambda: context.cancel()), hang_rank=0)
    before = {rank.pid for rank in real.cluster.status().ranks if rank.state != "lost"}  # by the test before
    with pytest.raises(RunCancelled, match="stopped; the ranks kept their variables"):
        real.run(CELL, context)
    assert train(real)[1] < 1e-6
    assert {rank.pid for rank in real.cluster.status().ranks} >= before  # interrupted, not replaced


LARGE = """
    import numpy as np

    def train(ps):
        e = ps.table("e", sparse=True, width=64, optimizer=pai.Adagrad(1.0))
        for clock in ps.clocks(100):
            keys = np.arange(rank, 300_000, world_size)[clock % 50 :: 50]
            e.push(keys, np.ones((len(keys), 64), np.float32))
"""


def test_a_table_larger_than_memory_is_trained_as_any_other(real: Any) -> None:
    def run(memory: int) -> Any:
        plan = replace(real.plan(LARGE, workers=2, servers=2), resources=Resources(2, servers=2, memory=memory))
        return Driver().run(plan, real.cluster, real.context())

    with pytest.raises(RunError, match=r"--memory 10MB is less than a server takes without any .* or more") as refused:
        run(10 << 20)
    least = int(re.search(r"give it (\d+)MB", str(refused.value))[1]) << 20  # type: ignore[index]
    # 154 MB with the state on each of two servers, which hold a copy of each other's part.
    memory = least + (16 << 20)
    over = threading.Event()
    largest: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch_servers, real.cluster, over, largest)
        try:
            result = run(memory)
        finally:
            over.set()
            watching.result(10)
    keys, rows = result.tables["e"]
    assert np.array_equal(keys, np.arange(300_000))
    assert np.allclose(rows, -1 - 1 / np.sqrt(2))
    for shard in result.shards:
        assert shard["rows_on_disk"] > 10_000
        assert shard["rows_on_disk"] + shard["rows_in_memory"] == shard["rows"]
    assert "rows of 'e' on disk" in repr(result)
    print(f"asked {memory >> 20} MB, the largest server took {max(largest) >> 20} MB")
    assert max(largest) < 1.1 * memory


def watch_servers(cluster: Cluster, over: threading.Event, largest: list[int]) -> None:
    """Note how much memory servers take, in bytes, until told that the run is over."""
    while not over.wait(0.02):
        for rank in cluster.status().ranks:
            if rank.role == "server" and rank.pid:
                with contextlib.suppress(psutil.NoSuchProcess):
                    largest.append(psutil.Process(rank.pid).memory_info().rss)
