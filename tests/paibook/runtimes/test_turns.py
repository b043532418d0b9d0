"""Turns on ranks: runs of every programming model wait for each other, and Stop reaches the run that was meant."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from paibook.clusters import connect
from paibook.clusters.contract import Cluster, Event
from paibook.errors import RunCancelled
from paibook.metrics import MetricStream
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook.runtimes.allreduce.driver import Driver as AllReduce
from paibook.runtimes.contract import RunContext
from paibook.runtimes.ps.driver import Driver as ParameterServer

WAIT = 30
TRAIN = """
def train(ps):
    print("inside", flush=True)
    for _ in range({steps}):
        time.sleep(0.01)
    return keep
"""
SPIN = "import time\nprint('inside', flush=True)\nfor _ in range({steps}): time.sleep(0.01)\n'whole'"


class Started:
    """A run in a thread of its own."""

    def __init__(self, kind: str, source: str, cluster: Cluster, folder: Path, pool: ThreadPoolExecutor) -> None:
        driver, servers = (ParameterServer(), 1) if kind == "ps" else (AllReduce(), 0)
        plan = Plan(kind, Program(source, "Cell In[1]"), Resources(workers=2, servers=servers))
        self.inside, self.waiting = threading.Event(), threading.Event()
        self.context = RunContext(f"{kind}-1", folder, {}, self._hear, lambda progress: None, MetricStream())
        self.future: Future[Any] = pool.submit(driver.run, plan, cluster, self.context)

    def _hear(self, event: Event) -> None:
        if event.kind == "stdout" and "inside" in event.data:
            self.inside.set()
        if event.kind == "stderr" and "waiting for run" in event.data:
            self.text = event.data
            self.waiting.set()


@pytest.mark.parametrize("kind", ["inline", pytest.param("embedded", marks=pytest.mark.slow)])
def test_a_run_waits_for_one_of_another_model_and_stop_withdraws_it_alone(kind: str, tmp_path: Path) -> None:
    cluster = connect(kind)
    pool = ThreadPoolExecutor(3)

    def start(model: str, source: str) -> Started:
        return Started(model, source, cluster, tmp_path, pool)

    try:
        start("allreduce", "import time\nkeep = 'precious'").future.result(WAIT)
        training = start("ps", TRAIN.format(steps=250))
        assert training.inside.wait(WAIT)
        queued = start("allreduce", "keep = 'spoilt'")
        assert queued.waiting.wait(WAIT)
        assert "ps-1" in queued.text
        queued.context.cancel()
        with pytest.raises(RunCancelled, match="before it began; the ranks kept their variables"):
            queued.future.result(2)
        assert not training.future.done()
        patient = start("allreduce", "keep")
        assert training.future.result(WAIT).returned == ("precious", "precious")
        assert dict(patient.future.result(WAIT).values) == {0: "precious", 1: "precious"}
        spinning = start("allreduce", SPIN.format(steps=200))
        assert spinning.inside.wait(WAIT)
        training = start("ps", TRAIN.format(steps=1))
        assert training.waiting.wait(WAIT)
        training.context.cancel()
        assert isinstance(training.future.exception(2), RunCancelled)
        assert dict(spinning.future.result(WAIT).values) == {0: "whole", 1: "whole"}
    finally:
        cluster.close()
        pool.shutdown()
