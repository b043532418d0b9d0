"""Running ``%%pai_ps`` cells on a cluster without a session."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paibook.clusters import connect
from paibook.clusters.contract import Cluster, Event
from paibook.clusters.inline import InlineCluster
from paibook.metrics import MetricStream
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook.runtimes.contract import RunContext
from paibook.runtimes.ps.driver import Driver
from paibook.runtimes.ps.result import PSResult


class Bench:
    """One cluster, and cells run on it."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster = cluster
        self.directory = directory
        self.events: list[Event] = []
        self.metrics = MetricStream("run")

    def plan(
        self,
        cell: str,
        workers: int = 3,
        servers: int = 2,
        timeout: float | None = 60,
        pull: tuple[str, ...] = (),
        **options: Any,
    ) -> Plan:
        resources = Resources(workers=workers, servers=servers)
        program = Program("\n" + textwrap.dedent(cell), "Cell In[1]")
        return Plan("ps", program, resources, options=options, hyperparameters={"lr": 0.5}, timeout=timeout, pull=pull)

    def context(self, on_event: Callable[[Event], None] = lambda event: None, **variables: Any) -> RunContext:
        self.metrics = MetricStream("run")

        def emit(event: Event) -> None:
            self.events.append(event)
            if event.kind == "metric":
                self.metrics.append(event.data)  # type: ignore[arg-type]
            on_event(event)

        return RunContext("run", self.directory, variables, emit, lambda progress: None, self.metrics)

    def run(self, cell: str, context: RunContext | None = None, **options: Any) -> PSResult:
        return Driver().run(self.plan(cell, **options), self.cluster, context or self.context())


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    cluster = InlineCluster()
    yield Bench(cluster, tmp_path)
    cluster.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = connect("embedded")
    cluster.start()
    yield cluster
    cluster.close()


@pytest.fixture
def real(bench: Any, cluster: Cluster) -> Any:
    """The bench on real processes."""
    inline, bench.cluster = bench.cluster, cluster
    inline.close()
    return bench
