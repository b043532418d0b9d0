"""What every MapReduce test needs: a plan from a cell's text, and a run of it."""

from __future__ import annotations

import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from paibook.clusters import connect
from paibook.clusters.contract import Cluster, Pending
from paibook.clusters.inline import InlineCluster, InlineTasks
from paibook.errors import RunError
from paibook.metrics import MetricStream
from paibook.plan import Plan
from paibook.program import Program
from paibook.runtimes.contract import Progress, RunContext
from paibook.runtimes.mapreduce import limits
from paibook.runtimes.mapreduce.attempts import Attempt
from paibook.runtimes.mapreduce.driver import Driver

WORD_COUNT = """
def map(record):
    for word in record.split():
        yield word, 1

def reduce(key, values):
    yield {"word": key, "n": sum(values)}
"""


DEATH = "paibook_test_death"  # a module through which cells die where all processes are this one


class Runner:
    """Runs cells on a cluster and keeps what they said."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.events: list[Any] = []
        self.progress: list[Progress] = []
        self.cluster: Any = InlineCluster(slots=2)
        self.runs = 0
        self.summary: dict[str, Any] = {}

    def plan(self, source: str, *inputs: Any, push: tuple[str, ...] = (), hp: Any = None, **options: Any) -> Plan:
        out = options.get("out")
        kind = options.pop("out_kind", "path" if out else "none")
        return Plan(
            "mapreduce",
            Program("\n" + textwrap.dedent(source).lstrip("\n"), "Cell In[7]"),
            options={"inputs": [str(i) if isinstance(i, Path) else i for i in inputs], "out_kind": kind} | options,
            hyperparameters=hp or {},
            push=push,
        )

    def context(self, variables: dict[str, Any] | None = None) -> RunContext:
        self.runs += 1
        return RunContext(
            f"run{self.runs}",
            self.directory,
            variables or {},
            self.events.append,
            self.progress.append,
            MetricStream(),
            summarise=self.take_summary,
        )

    def take_summary(self, summary: dict[str, Any]) -> None:
        self.summary = summary

    def __call__(self, source: str, *inputs: Any, variables: dict[str, Any] | None = None, **options: Any) -> Any:
        plan = self.plan(source, *inputs, **options)
        driver = Driver()
        driver.check(plan)
        return driver.run(plan, self.cluster, self.context(variables))

    def over(self, source: str, items: Any, variables: dict[str, Any] | None = None, **options: Any) -> Any:
        """Run over a notebook variable called ``items``."""
        return self(source, {"variable": "items"}, variables={"items": items, **(variables or {})}, **options)


class Death(BaseException):
    """What stands for the end of a worker's process where all workers are this process."""


class MortalTasks(InlineTasks):
    """Inline tasks that end as those of a cluster do when their worker's process has died."""

    def submit(self, function: Callable[..., Any], *args: Any, **options: Any) -> Pending[Any]:
        def mortal(*values: Any) -> Any:
            try:
                return function(*values)
            except Death as death:
                raise RunError("the task ended its worker process") from death

        return super().submit(mortal, *args, **options)


class MortalAttempt(Attempt):
    """Leaves the marks that a process leaves which cannot say that it ends."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is Death and self._marks is not None:
            self._marks.close()
            self._marks = None
        super().__exit__(kind, error, traceback)


@contextmanager
def mortal_cluster(slots: int) -> Iterator[InlineCluster]:
    """An inline cluster whose tasks die when a cell calls ``die()`` of the module ``DEATH``."""

    def die() -> None:
        raise Death

    module = types.ModuleType(DEATH)
    module.die = die  # type: ignore[attr-defined]
    cluster = InlineCluster(slots)
    cluster._tasks = MortalTasks(slots)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, DEATH, module)
        patch.setattr("paibook.runtimes.mapreduce.scene.Attempt", MortalAttempt)
        patch.setattr(limits, "LEAST", limits.LEAST)  # cells change it
        yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def mortal() -> Callable[[int], AbstractContextManager[InlineCluster]]:
    """Makes a context: an inline cluster of so many slots whose tasks can die."""
    return mortal_cluster


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two worker processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAIBOOK_WORKERS", "2")
        cluster = connect("embedded")
        cluster.start()
        yield cluster
        cluster.close()


@pytest.fixture
def on_cluster(run: Runner, cluster: Cluster) -> Runner:
    run.cluster = cluster
    return run


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., list[Path]]:
    """Write text files: ``files(a="...", b="...")`` makes a.txt and b.txt in the folder ``corpus``."""

    def write(**contents: str) -> list[Path]:
        folder = tmp_path / "corpus"
        folder.mkdir(exist_ok=True)
        paths = [folder / f"{name}.txt" for name in contents]
        for path, text in zip(paths, contents.values(), strict=True):
            path.write_text(text)
        return paths

    return write
