"""The same runs on real processes: right answers, and a clear end when one of them is killed."""

from __future__ import annotations

import os
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


@pytest.mark.parametrize("role", ["worker", "server"])
@pytest.mark.parametrize("consistency", ["bsp", "asp"])
def test_a_killed_process_ends_the_run_with_its_name(real: Any, role: str, consistency: str) -> None:
    def kill() -> None:
        pid = next(rank.pid for rank in real.cluster.status().ranks if (rank.role, rank.rank) == (role, 1))
        os.kill(pid, signal.SIGKILL)

    began = time.monotonic()
    with pytest.raises(RankLost, match=f"{role} rank 1 was lost: .*SIGKILL") as caught:
        real.run(CELL, real.context(once(kill), hang_rank=-1), consistency=consistency)
    assert time.monotonic() - began < 30
    assert ("replicas come later" in str(caught.value)) == (role == "server")
    assert train(real)[1] < 1e-6  # fresh ranks in place of the lost, the others kept
    assert not [c for c in psutil.Process().children(recursive=True) if c.status() == psutil.STATUS_ZOMBIE]


def test_cancelling_frees_sleepers_and_those_who_wait_for_them(real: Any) -> None:
    context = real.context(once(lambda: context.cancel()), hang_rank=0)
    before = {rank.pid for rank in real.cluster.status().ranks}
    with pytest.raises(RunCancelled, match="stopped; the ranks kept their variables"):
        real.run(CELL, context)
    assert train(real)[1] < 1e-6
    assert {rank.pid for rank in real.cluster.status().ranks} >= before  # interrupted, not replaced
