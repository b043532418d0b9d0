"""The inputs of a plan, found and cut into splits; an earlier run's output among them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from paibook.clusters.contract import Tasks
from paibook.data.sampling import sampled
from paibook.data.sources import input_splits
from paibook.errors import DataError
from paibook.plan import Plan
from paibook.runtimes.contract import SUMMARY, RunContext
from paibook.runtimes.mapreduce.options import inputs_of
from paibook.runtimes.mapreduce.steps import MAIN


def plan_splits(plan: Plan, context: RunContext, tasks: Tasks, typed: bool) -> list[tuple[Any, str]]:
    """The splits of all inputs, in the order they are given, each with the name of its input.

    Raises:
        DataError: An input that is not there, or cannot be read as one.
        PlanError: A variable the notebook does not have.
    """
    splits: list[tuple[Any, str]] = []
    for name, entries in groupby(inputs_of(plan.options), lambda entry: entry.name):
        found: Sequence[Any] = input_splits(
            [entry.entry for entry in entries],
            tasks.slots,
            context.variables,
            plan.options.get("format"),
            typed=typed,
            compute=tasks.partitions,
            output_of=partial(output_of, context.directory.parent),
        )
        fraction = plan.options.get("sample")
        if fraction is not None:
            found = sampled(found, fraction)
        splits += [(split, name) for split in found]
    return splits


def output_of(runs: Path, run: str) -> str:
    """The path that a run wrote its main output to.

    Raises:
        DataError: No such run, several, or one that wrote no path.
    """
    found = [path for path in runs.glob(f"*/{SUMMARY}") if run and run in _ends(path.parent.name, run)]
    if len(found) != 1:
        raise DataError(f"run:{run}: {'several runs are' if found else 'no finished run is'} called so; see %pai_runs")
    target: str = json.loads(found[0].read_text())["outputs"][MAIN]["target"]
    if not target:
        raise DataError(f"run:{run}: its result went to the notebook; name the variable instead")
    return target


def _ends(name: str, run: str) -> tuple[str, str]:
    return name[: len(run)], name[-len(run) :]
