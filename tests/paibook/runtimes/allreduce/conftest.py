"""A bench for cells: a cluster, and one line to run a cell on it."""

from __future__ import annotations

import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paibook.clusters import connect
from paibook.clusters.contract import Cluster, Event
from paibook.metrics import MetricStream
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook.runtimes.allreduce.cell import AllReduceResult
from paibook.runtimes.allreduce.driver import Driver
from paibook.runtimes.contract import RunContext


class Bench:
    """Runs cells on one cluster and keeps what the last one said."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.events: list[Event] = []
        self.cells = 0

    def run(
        self, source: str, workers: int = 2, variables: dict[str, Any] | None = None, **fields: Any
    ) -> AllReduceResult:
        """Run a cell; its first line is line 1."""
        return self.start(source, workers, variables, **fields)[0]()

    def start(
        self, source: str, workers: int = 2, variables: dict[str, Any] | None = None, **fields: Any
    ) -> tuple[Any, RunContext, threading.Event]:
        """Prepare a cell: how to run it, its context, and an event set when a rank prints ``here``, or ``all here`` the
        last one does."""
        self.cells += 1
        self.events = events = []
        here, arrived = threading.Event(), set[int]()

        def emit(event: Event) -> None:
            events.append(event)
            if event.kind == "stdout" and "here" in event.data:
                arrived.add(event.rank)
                if "all here" not in event.data or len(arrived) == workers:
                    here.set()

        program = Program(textwrap.dedent(source).strip("\n"), f"Cell In[{self.cells}]")
        plan = Plan("allreduce", program, Resources(workers=workers), **fields)
        context = RunContext(str(self.cells), self.folder, variables or {}, emit, lambda progress: None, MetricStream())
        return lambda: Driver().run(plan, self.cluster, context), context, here

    def cancelled(self, source: str, **fields: Any) -> BaseException | None:
        """Run a cell, cancel it when it prints ``here``, and return what it raised."""
        run, context, here = self.start(source, **fields)
        stopper = threading.Thread(target=lambda: here.wait(30) and context.cancel(), daemon=True)
        stopper.start()
        with pytest.raises(Exception) as caught:
            run()
        stopper.join()
        return caught.value

    def said(self, kind: str) -> list[tuple[int, Any]]:
        """What the last cell said of one kind, by rank."""
        return sorted((event.rank, event.data) for event in self.events if event.kind == kind)

    def printed(self, rank: int) -> str:
        """What one rank printed in the last cell; it may have come in several pieces."""
        return "".join(event.data for event in self.events if event.kind == "stdout" and event.rank == rank)


@pytest.fixture
def inline(tmp_path: Path) -> Iterator[Bench]:
    """A bench whose ranks are threads."""
    cluster = connect("inline")
    yield Bench(cluster, tmp_path)
    cluster.close()


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A bench whose ranks are processes; shared by a module's tests."""
    cluster = connect("embedded")
    yield Bench(cluster, tmp_path_factory.mktemp("run"))
    cluster.close()
