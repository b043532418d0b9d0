"""The running task, as the cell's own functions see it: its place, counters, resources and named outputs."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from paibook.errors import DataError, PaibookError


class Task:
    """A task of the run, handed to ``setup`` and ``cleanup``; other attributes are the program's to set.

    Args:
        stage: ``"map"``, ``"reduce"``, ``"reduce2"``, ...
        number: From 0, among the tasks of its stage; the same for every attempt.
        resources: Where each ``--resource`` lies on this machine, by file name.
        folder: Where it may spill, which goes with the run; None where there is none.
        budget: Bytes that it may hold.
    """

    def __init__(
        self, stage: str, number: int, resources: Mapping[str, Path], folder: Path | None = None, budget: int = 0
    ) -> None:
        self.stage = stage
        self.number = number
        self.resources = resources
        self.folder = folder
        self.budget = budget
        self.counters: Tally[str] = Tally()

    def __repr__(self) -> str:
        return f"<{self.stage} task {self.number}>"


class Counter:
    """A count of something that the tasks of a run see; counted once however often a task is repeated."""

    __slots__ = ("_name", "_tally")

    def __init__(self, name: str, tally: Tally[str]) -> None:
        self._name = name
        self._tally = tally

    def add(self, amount: int = 1) -> None:
        """Count ``amount`` more."""
        self._tally[self._name] += amount


class Output:
    """A record on its way to a named output."""

    __slots__ = ("name", "record")

    def __init__(self, name: str, record: Any) -> None:
        self.name = name
        self.record = record

    def __repr__(self) -> str:
        return f"pai.output({self.name!r}, {self.record!r:.60})"


_current: ContextVar[Task | None] = ContextVar("paibook_task", default=None)


@contextmanager
def running(task: Task) -> Iterator[Task]:
    """Make ``task`` the current one."""
    token = _current.set(task)
    try:
        yield task
    finally:
        _current.reset(token)


def current() -> Task:
    """The task that runs this code (``pai.task()``).

    Raises:
        PaibookError: Outside of tasks.
    """
    task = _current.get()
    if task is None:
        raise PaibookError("this works inside the functions of a %%pai_mapreduce cell, while they run")
    return task


def counter(name: str) -> Counter:
    """A counter of the run, such as ``pai.counter("bad_rows").add(1)``.

    Raises:
        PaibookError: Outside of tasks.
    """
    return Counter(str(name), current().counters)


def resource(name: str) -> Path:
    """Where a file named by ``--resource`` lies on the machine that runs this code.

    Args:
        name: The file's name, without its folder.

    Raises:
        DataError: The line names no such file; lists those it names.
        PaibookError: Outside of tasks.
    """
    resources = current().resources
    if name not in resources:
        known = ", ".join(sorted(resources)) or "none"
        raise DataError(f"there is no resource {name!r}; name it with --resource PATH (named here: {known})")
    return resources[name]


def output(name: str, record: Any) -> Output:
    """A record for the named output ``name``: ``yield pai.output("bad", record)`` with ``-o ... bad=bad.jsonl``."""
    return Output(name, record)
