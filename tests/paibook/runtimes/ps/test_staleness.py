"""How stale a pull may be, proved on real threads, and how stale pulls were, told."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paibook.runtimes.ps.client import ParameterServer
from paibook.runtimes.ps.consistency import Consistency
from paibook.runtimes.ps.staleness import PREFIX
from tests.paibook.runtimes.ps.server_threads import serving

WORKERS, CLOCKS, PUSHES = 3, 8, 2  # pushes: of each worker in each clock


class Witness:
    """A worker at work: each push adds 1 where only that worker and clock do, each pull is checked for all that it
    must have seen."""

    def __init__(self, ps: ParameterServer, consistency: Consistency, seed: int) -> None:
        self.ps = ps
        self.consistency = consistency
        self.chance = random.Random(1000 * seed + ps.rank)
        self.dense = ps.table("dense", shape=(WORKERS, CLOCKS), dtype="int64")
        self.sparse = ps.table("sparse", sparse=True, dtype="int64")
        self.cells = np.arange(WORKERS * CLOCKS)
        self.clock = 0

    def run(self) -> None:
        for clock in self.ps.clocks(CLOCKS):
            self.clock = clock
            prefetched = [t.prefetch(k) for t, k in self.pulls() if self.chance.random() < 0.3]
            for pushed in range(PUSHES):
                self.rest()
                self.check(pushed)
                one = np.zeros((1, CLOCKS), np.int64)
                one[0, self.clock] = 1
                self.dense.push([self.ps.rank], one)
                self.sparse.push([self.ps.rank * CLOCKS + self.clock], [[1]])
                self.rest()
            self.check(PUSHES)
            for ticket in prefetched:
                self.check_bound(np.asarray(ticket.result()).reshape(WORKERS, CLOCKS))

    def pulls(self) -> list[tuple[Any, Any]]:
        """Each table with keys that give the whole of it: the prefetched ones may have been asked a clock ago."""
        return [(self.dense, None), (self.dense, range(WORKERS)), (self.sparse, self.cells)]

    def rest(self) -> None:
        if self.chance.random() < 0.4:
            time.sleep(self.chance.random() * 0.004)

    def check(self, pushed: int) -> None:
        table, keys = self.chance.choice(self.pulls())
        fresh = self.chance.random() < 0.5
        if fresh:  # for the next pull, maybe that of a later clock
            table.prefetch(keys)
        seen = table.pull(keys).reshape(WORKERS, CLOCKS)
        self.check_bound(seen)
        assert table.staleness <= (CLOCKS if self.consistency.kind == "asp" else self.consistency.staleness)

    def check_bound(self, seen: np.ndarray) -> None:
        assert seen.min() >= 0
        assert seen.max() <= PUSHES
        if self.consistency.kind != "asp":
            known = max(0, self.clock - self.consistency.staleness)
            assert (seen[:, :known] == PUSHES).all(), f"clock {self.clock} missed an update before {known}: {seen}"
        if self.consistency.kind == "bsp":
            assert not seen[:, self.clock :].any()


MODELS = [Consistency("bsp"), Consistency("ssp", 0), Consistency("ssp", 1), Consistency("ssp", 3), Consistency("asp")]


@settings(max_examples=15)
@given(st.sampled_from(MODELS), st.integers(1, 3), st.integers(0, 10**6))
def test_no_pull_misses_an_update_older_than_its_bound(consistency: Consistency, servers: int, seed: int) -> None:
    with serving(consistency, WORKERS, servers) as run:
        run.train(lambda ps: Witness(ps, consistency, seed).run())


@pytest.mark.parametrize("kind", ["ssp", "asp"])
def test_a_worker_sees_what_it_pushed_itself(kind: str) -> None:
    def train(ps: ParameterServer) -> None:
        table = ps.table("w", shape=5, dtype="int64")
        for clock in ps.clocks(5):
            table.push([ps.rank], [1])
            assert table.pull()[ps.rank] == clock + 1

    with serving(Consistency(kind, 2), 2, 2) as run:
        run.train(train)


def test_asp_has_no_bound_and_says_how_stale_it_was() -> None:
    late = threading.Event()

    def train(ps: ParameterServer) -> Any:
        table = ps.table("w", shape=2, dtype="int64")
        if ps.rank == 0:
            assert late.wait(30)
            table.push([0], [1])
            ps.clock()
        for _ in ps.clocks(20 if ps.rank == 1 else 0):
            table.push([1], [1])
        try:
            return table.pull().tolist() if ps.rank == 1 else None
        finally:
            late.set()
            counted.append((ps.rank, ps.staleness.histograms()))

    counted: list[Any] = []
    with serving(Consistency("asp"), 2, 1) as run:
        assert run.train(train)[1] == [0, 20]  # 20 clocks later, nothing of worker 0
    assert (1, {"w": {20: 1}}) in counted


CELL = """
    def train(ps):
        w = ps.table("w", shape=4, optimizer=pai.SGD(0.1))
        for epoch in ps.clocks(10):
            if rank == 0 and epoch == 0:
                gate.wait(30)
            w.pull()
            if rank == 1 and epoch == 3:
                gate.set()
            w.push(w.pull())
"""


def test_a_runs_result_and_metrics_tell_the_staleness(bench: Any) -> None:
    result = bench.run(CELL, bench.context(gate=threading.Event()), workers=2, consistency="ssp", staleness=3)
    histograms = result.staleness["w"]
    assert [sum(histogram.values()) for histogram in histograms] == [20, 20]
    assert max(histograms[1]) == 3  # worker 1 read at clock 3 while worker 0 was at 0
    assert "staleness of 'w': " in repr(result)
    assert "3 at most, over 40 pulls" in repr(result)
    logged = [metric for metric in bench.metrics if metric.name == PREFIX + "w"]
    assert {metric.rank for metric in logged} == {0, 1}
    assert max(metric.value for metric in logged) == 3


def test_under_bsp_nothing_is_stale_nor_logged(bench: Any) -> None:
    cell = CELL.replace("gate", "__import__('threading').Event()").replace("epoch == 0", "False")
    result = bench.run(cell, workers=2)
    assert result.staleness == {"w": ({0: 20}, {0: 20})}
    assert "staleness" not in repr(result)
    assert not bench.metrics.names
