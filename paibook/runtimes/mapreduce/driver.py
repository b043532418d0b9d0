"""The MapReduce driver: from a plan to tasks, and from their results to what the cell gives."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

from paibook.clusters.contract import Cluster, Pending
from paibook.data.dataset import Dataset
from paibook.data.formats import check_format
from paibook.data.frames import common_schema, frame
from paibook.data.inputs import find_files
from paibook.data.parts import Part, rewrite
from paibook.data.splits import Split, file_splits
from paibook.data.staging import Staging, check_target
from paibook.data.variables import variable_splits
from paibook.errors import PlanError
from paibook.plan import Plan
from paibook.runtimes.contract import RunContext
from paibook.runtimes.mapreduce.job import Job
from paibook.runtimes.mapreduce.stage import Stages
from paibook.runtimes.mapreduce.worker import Rows, hold, map_task, records_of, reduce_task, select

MAGIC = "%%pai_mapreduce"
REQUIRED = {"map": ("record",), "reduce": ("key", "values")}
OPTIONAL = {"combine": ("key", "values")}
MOST_SELECTS = 16_384  # a bucket's way costs the scheduler about a millisecond


class Driver:
    """Drives ``%%pai_mapreduce`` from the notebook's process."""

    def check(self, plan: Plan) -> None:
        """Refuse a plan that cannot work: its functions, inputs, output and number of reducers.

        Raises:
            ProgramError, PlanError, DataError, SyntaxError: Naming what is wrong.
        """
        plan.program.check(MAGIC, REQUIRED, OPTIONAL)
        options = plan.options
        check_format(options.get("format"))
        reducers = options.get("reducers")
        if reducers is not None and (isinstance(reducers, bool) or not isinstance(reducers, int) or reducers < 1):
            raise PlanError(f"--reducers must be a whole number, 1 or more; got {reducers!r}")
        if options.get("as", "list") not in ("list", "dataframe", None):
            raise PlanError(f"--as is list or dataframe; got {options['as']!r}")
        self._check_inputs(options.get("inputs"))
        if options.get("out_kind") == "path":
            if not options.get("out"):
                raise PlanError("an output path is needed: -o PATH")
            check_target(options["out"], bool(options.get("overwrite")))

    def _check_inputs(self, inputs: Any) -> None:
        if not inputs:
            raise PlanError(f"{MAGIC} needs an input: -i PATH, a glob such as -i 'logs/*.txt', or a variable's name")
        for item in inputs:
            if isinstance(item, str):
                find_files(item)
            elif not isinstance(item, dict) or not isinstance(item.get("variable"), str):
                raise PlanError(f"an input is a path or a variable; got {item!r}")

    def run(self, plan: Plan, cluster: Cluster, context: RunContext) -> Any:
        """Run the plan.

        Returns:
            A list of records, a DataFrame, or a ``Dataset`` where the output is a path.

        Raises:
            UserCodeError, DataError, RunError, RunCancelled: What ended it; no output is left behind.
        """
        stages = Stages(cluster.tasks(), context)
        try:
            if plan.options.get("out_kind") != "path":
                return self._collect(plan, cluster, context, stages)
            overwrite = bool(plan.options.get("overwrite"))
            target = check_target(plan.options["out"], overwrite)
            with Staging(target, context.run, overwrite) as staging:
                try:
                    return self._write(plan, cluster, context, stages, staging)
                finally:
                    stages.release()  # before the staging folder goes, so that no task is left writing there
        finally:
            stages.release()

    def _collect(self, plan: Plan, cluster: Cluster, context: RunContext, stages: Stages) -> Any:
        reduces = self._submit(plan, cluster, context, stages, None)
        stages.wait()
        records = in_order([pending.result() for pending in reduces])
        return frame(records) if plan.options.get("as") == "dataframe" else records

    def _write(self, plan: Plan, cluster: Cluster, context: RunContext, stages: Stages, staging: Staging) -> Dataset:
        reduces = self._submit(plan, cluster, context, stages, staging)
        stages.wait()
        parts = [part for part in (pending.result() for pending in reduces) if part is not None]
        parts = _in_one_schema(parts, staging, stages)
        context.check_cancelled()
        return staging.commit(parts)

    def _submit(
        self, plan: Plan, cluster: Cluster, context: RunContext, stages: Stages, staging: Staging | None
    ) -> list[Pending[Any]]:
        """Submit the whole run at once: the cluster sees which task needs what, and repeats what a lost worker held."""
        slots = cluster.tasks().slots
        splits = plan_splits(plan, context, slots)
        reducers = plan.options.get("reducers") or reducers_for(slots, len(splits))
        variables = {name: context.variables[name] for name in plan.push}
        packed = Job.pack(context.run, plan.program, variables, plan.hyperparameters)
        stages.announce("map", len(splits))
        stages.announce("reduce", reducers)
        job = stages.submit(hold, packed, label="program", number=0)
        maps = [
            stages.submit(map_task, i, job, split, reducers, label="map", number=i) for i, split in enumerate(splits)
        ]
        reduces = []
        for number in range(reducers):
            buckets = [
                stages.submit(select, output, number, label="shuffle", number=number * len(maps) + i)
                for i, output in enumerate(maps)
            ]
            writer = staging.writer(number) if staging is not None else None
            reduces.append(
                stages.submit(reduce_task, number, job, buckets, writer, reducers > 1, label="reduce", number=number)
            )
        return reduces


def plan_splits(plan: Plan, context: RunContext, slots: int) -> list[Split]:
    """The splits of all inputs, in the order they are given.

    Raises:
        DataError: An input that is not there, or cannot be read as one.
        PlanError: A variable the notebook does not have.
    """
    splits: list[Split] = []
    paths: list[str] = []
    for item in plan.options["inputs"]:
        if isinstance(item, str):
            paths.append(item)
            continue
        splits.extend(file_splits(paths, slots, plan.options.get("format")))
        paths = []
        name = item["variable"]
        if name not in context.variables:
            raise PlanError(f"the input variable {name!r} is not defined in the notebook")
        splits.extend(variable_splits(name, context.variables[name], slots))
    splits.extend(file_splits(paths, slots, plan.options.get("format")))
    return splits


def reducers_for(slots: int, splits: int) -> int:
    """How many partitions: two for each slot, fewer where the buckets between them would be too many."""
    return max(1, min(2 * slots, MOST_SELECTS // max(1, splits)))


def in_order(parts: Sequence[Rows]) -> list[Any]:
    """All partitions' records in the order of their keys, else partition after partition."""
    if len(parts) == 1:
        return records_of(parts[0])
    lists = [records_of(part) for part in parts]
    joined = [record for records in lists for record in records]
    if any(part.keys is None for part in parts):
        return joined
    keys: list[Any] = []
    edges = [0]
    for part, records in zip(parts, lists, strict=True):
        first = edges[-1]
        part_keys, ends = pickle.loads(part.keys or b"")
        keys += part_keys
        edges += [first + end for end in ends]
        assert edges[-1] == first + len(records)
    try:
        # Each partition is sorted already, and Python's sort merges such runs.
        order = sorted(range(len(keys)), key=keys.__getitem__)
    except TypeError:  # text in one partition, numbers in another
        return joined
    if edges == list(range(len(edges))):  # one record for each key
        return [joined[i] for i in order]
    return [record for i in order for record in joined[edges[i] : edges[i + 1]]]


def _in_one_schema(parts: list[Part], staging: Staging, stages: Stages) -> list[Part]:
    """The parts, those written again whose columns differ from what all have in common."""
    schemas = [part.schema for part in parts if part.schema is not None]
    if not schemas or all(schema.equals(schemas[0]) for schema in schemas):
        return parts
    common = common_schema(schemas, str(staging.target))
    different = [part for part in parts if part.schema is not None and not part.schema.equals(common)]
    stages.announce("write", len(different))
    pending: dict[str, Pending[Part]] = {}
    for part in different:
        arguments = (staging.attempts, staging.format, part, common)
        pending[part.name] = stages.submit(rewrite, *arguments, label="write", number=part.number)
    stages.wait()
    return [pending[part.name].result() if part.name in pending else part for part in parts]
