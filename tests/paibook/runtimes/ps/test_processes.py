"""The same runs on real processes: right answers, whoever is killed."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
import pytest

from paibook.clusters import connect
from paibook.clusters.contract import Cluster, Event
from paibook.errors import RankLost, RunCancelled, UserCodeError

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


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = connect("embedded")
    cluster.start()
    yield cluster
    cluster.close()


@pytest.fixture
def real(bench: Any, cluster: Cluster) -> Any:
    inline, bench.cluster = bench.cluster, cluster
    inline.close()
    return bench


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
