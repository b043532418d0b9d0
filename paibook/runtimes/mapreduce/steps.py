"""Steps: what the driver tells a task to do with what it makes, and what the task gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from paibook.data.parts import PartWriter
from paibook.runtimes.mapreduce.limits import Limits
from paibook.runtimes.mapreduce.report import Report
from paibook.runtimes.mapreduce.shuffle import Buckets

MAIN = ""  # name of the main output


@dataclass(frozen=True, slots=True)
class ShuffleTo:
    """Cut into buckets for the reducers of a stage.

    Attributes:
        stage: Its number.
        buckets: How many.
        gathered: Relations that go to one task.
    """

    stage: int
    buckets: int
    gathered: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class WriteTo:
    """Write into outputs.

    Attributes:
        writers: By output; None brings the records to the notebook.
        with_keys: Whether the main output's keys come along, so that partitions can be put in order.
        as_table: Whether the notebook wants the main output as a table, with its columns' types.
    """

    writers: Mapping[str, PartWriter | None]
    with_keys: bool = True
    as_table: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What every task of a stage is told.

    Attributes:
        sink: Where its records go.
        folder: Shared by notebook and workers, for shuffle files and attempts; None where there is none.
        limits: Of memory.
        max_bad: What the run may skip.
        descending: Whether keys are reduced from the greatest down.
        must_sort: Whether keys that cannot be compared are an error.
        keys: Key columns of tables.
    """

    sink: ShuffleTo | WriteTo
    folder: Path | None
    limits: Limits
    max_bad: int | float | None = None
    descending: bool = False
    must_sort: bool = False
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rows:
    """A task's records on their way to the notebook.

    Attributes:
        content: The pickled list of records, or a packed table.
        keys: The pickled keys in order where they can be compared, each with where its records end; else None.
    """

    content: bytes
    keys: bytes | None


@dataclass(frozen=True, slots=True)
class Done:
    """What a task gives back.

    Attributes:
        value: Buckets of a shuffle, or for each output its rows or its part.
        report: What it did.
    """

    value: Any
    report: Report

    def without_content(self) -> Done:
        """The same without the bytes of a shuffle that lies in memory: its handles."""
        buckets: Buckets = self.value
        bare = [[replace(segment, source=b"", length=0) for segment in bucket] for bucket in buckets]
        return Done(bare, self.report)
