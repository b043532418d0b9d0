"""MapReduce in one process, in a few lines: what an algorithm's cell must give, whatever engine runs it."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

from paibook.data.splits import file_splits
from paibook.data.variables import variable_splits
from paibook.hyperparameters import HyperParameters
from paibook.runtimes.mapreduce.task import Task, current, running

TASKS = 3


class SimulatedSession:
    """Runs plans at once, with map tasks that combine twice and chains of stages."""

    cluster = SimpleNamespace(reference="inline")

    def __init__(self):
        self.plans = []

    def run(self, plan, variables):
        self.plans.append(plan)
        records = simulate(plan, variables)
        return SimpleNamespace(result=lambda: records)


def simulate(plan, variables):
    """The records of a plan whose output is the notebook's."""
    cell = {"hp": HyperParameters(**plan.hyperparameters), "pai": SimpleNamespace(task=current)}
    plan.program.execute(cell)
    pairs = []
    for number, (name, records) in enumerate(splits(plan, variables)):
        mapper = cell.get(f"map_{name}") or cell["map"]
        with running(Task("map", number, {})) as task:
            if "setup" in cell:
                cell["setup"](task)
            pairs += combined(cell.get("combine"), [pair for record in records for pair in mapper(record)])
    records = reduced(cell, "", combined(cell.get("combine"), pairs))
    if "reduce2" in cell:
        records = reduced(cell, "2", combined(cell.get("combine2"), records))
    return records


def splits(plan, variables):
    for entry in plan.options["inputs"]:
        entry = {"path": entry} if isinstance(entry, str) else entry
        if "variable" in entry:
            found = variable_splits(entry["variable"], variables[entry["variable"]], 1, TASKS)
        else:
            found = file_splits([entry["path"]], 1, plan.options.get("format"))
        for split in found:
            yield entry.get("name", ""), [record for batch in split.batches() for record in batch.records]


def combined(combine, pairs):
    if combine is None:
        return pairs
    return [pair for key, values in grouped(pairs).items() for pair in combine(key, iter(values))]


def reduced(cell, stage, pairs):
    records = []
    for key, values in grouped(pairs).items():
        order = cell.get("order" + stage)
        records += cell["reduce" + stage](key, iter(sorted(values, key=order) if order else values))
    return records


def grouped(pairs):
    groups = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return groups
