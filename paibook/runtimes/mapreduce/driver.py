"""The MapReduce driver: from a plan to tasks, and from their results to what the cell gives."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from paibook.clusters.contract import Cluster, Tasks
from paibook.data.dataset import Dataset
from paibook.data.frames import common_schema, frame
from paibook.data.parts import Part, rewrite
from paibook.data.sampling import sampled
from paibook.data.sources import input_splits
from paibook.data.staging import Staging, check_target, commit_all
from paibook.data.variables import VariableSplit
from paibook.errors import DataError, PlanError, RunError
from paibook.plan import Plan
from paibook.runtimes.contract import SUMMARY, RunContext
from paibook.runtimes.mapreduce.bad_records import BadFile, save, too_many
from paibook.runtimes.mapreduce.balance import runs_of_buckets
from paibook.runtimes.mapreduce.checkpoint import Checkpoint, State
from paibook.runtimes.mapreduce.job import Job
from paibook.runtimes.mapreduce.limits import Limits
from paibook.runtimes.mapreduce.options import check_options, inputs_of, resources_of, targets_of
from paibook.runtimes.mapreduce.outline import Outline, outline, suffixed
from paibook.runtimes.mapreduce.report import Report
from paibook.runtimes.mapreduce.scheduler import Call, Scheduler, StageResult
from paibook.runtimes.mapreduce.shuffle import Segment
from paibook.runtimes.mapreduce.steps import MAIN, Done, Rows, ShuffleTo, Step, WriteTo
from paibook.runtimes.mapreduce.summary import run_summary
from paibook.runtimes.mapreduce.worker import hold, map_pending, map_task, reduce_task, select

BUCKETS_PER_SLOT = 8  # fine enough for reduce tasks of equal size
TASKS_PER_SLOT = 2
TASK_BYTES = {"groups": 32 << 20, "table": 128 << 20}  # that a reduce task takes where nobody says how many there are


class Results(dict[str, Any]):
    """The outputs of a run with several, by name; ``""`` is the main one."""


class Driver:
    """Drives ``%%pai_mapreduce`` from the notebook's process."""

    def check(self, plan: Plan) -> None:
        """Refuse a plan that cannot work: its functions, inputs, outputs and options.

        Raises:
            ProgramError, PlanError, DataError, SyntaxError: Naming what is wrong.
        """
        if plan.options.get("sql"):
            raise PlanError("--sql is not ready in this version: write the query as map and reduce, or batch functions")
        outline(plan.program, _input_names(plan))
        check_options(plan.options)

    def run(self, plan: Plan, cluster: Cluster, context: RunContext) -> Any:
        """Run the plan, or go on with it where ``context.resumed``.

        Returns:
            A list of records, a DataFrame, or a ``Dataset`` where the output is a path; ``Results`` where there are
            several outputs.

        Raises:
            UserCodeError, DataError, RunError, RunCancelled: What ended it; no output is left behind.
        """
        return _MapReduce(plan, cluster, context).run()


class _MapReduce:
    """One run."""

    def __init__(self, plan: Plan, cluster: Cluster, context: RunContext) -> None:
        self._plan, self._cluster, self._context = plan, cluster, context
        self._options = plan.options
        self._checkpoint = Checkpoint(context.directory)
        self._targets = targets_of(plan.options)
        self._stages: list[tuple[str, StageResult]] = []
        self._bad: list[BadFile] = []

    def run(self) -> Any:
        tasks = self._cluster.tasks()
        context = self._context
        state = self._checkpoint.load() if context.resumed else None
        self._checkpoint.create()
        probe = self._checkpoint.folder / "shared"
        probe.touch()
        self._shared = tasks.shares(str(probe))
        if state is None:
            state = self._laid_out(tasks.slots)
            if self._shared and all(getattr(split, "pending", None) is None for split, _ in state.splits):
                self._checkpoint.save(state)
        asked = self._plan.resources.workers
        window = min(tasks.slots, asked) if asked else tasks.slots
        backups = bool(self._options.get("backups", True)) and self._shared
        checkpoint = self._checkpoint if self._shared else None
        # Fewer workers than there are keep to their number only where no task waits at another.
        ahead = window if window == tasks.slots else 0
        self._scheduler = Scheduler(tasks, context, window, backups, checkpoint, ahead)
        try:
            with ExitStack() as stack:
                stagings = self._stagings(stack)
                # Before the staging folders go, so that no task is left writing there.
                stack.callback(self._scheduler.release)
                return self._carry_out(state, stagings)
        finally:
            self._scheduler.release()
            self._checkpoint.remove()

    def _carry_out(self, state: State, stagings: Mapping[str, Staging]) -> Any:
        job: Any = state.job
        if not self._shared:
            job = self._scheduler.submit(hold, job, label="program")
        shape = state.job.outline
        if shape.is_map_only:
            sink: ShuffleTo | WriteTo = self._write_to(stagings, 0, with_keys=False)
            done = self._map(state, job, sink, stagings).done
        else:
            result = self._map(state, job, ShuffleTo(1, state.buckets), stagings)
            for stage in shape.stages:
                last = stage.number == len(shape.stages)
                result = self._reduce(stage.number, state, job, result, stagings, last)
            done = result.done
        results = self._collected(done, stagings)
        self._context.check_cancelled()
        parts = [self._parts(done, name, staging) for name, staging in stagings.items()]
        datasets = dict(zip(stagings, commit_all(list(stagings.values()), parts), strict=True))
        results.update(datasets)
        self._summarise(datasets, results)
        return results[MAIN] if len(self._targets) == 1 else Results(results)

    def _laid_out(self, slots: int) -> State:
        plan, context = self._plan, self._context
        variables = {name: context.variables[name] for name in plan.push}
        job = Job.pack(
            context.run, plan.program, variables, plan.hyperparameters, _input_names(plan), resources_of(plan.options)
        )
        if self._shared:
            job = job.in_file(self._checkpoint.folder / "program")
        buckets = self._options.get("reducers") or BUCKETS_PER_SLOT * slots
        if job.outline.stages[0].has_partition:
            buckets = self._options.get("reducers") or TASKS_PER_SLOT * slots
        return State(job, self._splits(job.outline), buckets, slots)

    def _splits(self, shape: Outline) -> list[tuple[Any, str]]:
        # Columns then need one type in all of an input's files.
        typed = any(name.startswith("map") for name in shape.of_tables)
        splits = plan_splits(self._plan, self._context, self._cluster.tasks(), typed)
        if not self._shared:
            return splits
        # In files the items of variables need not travel with the tasks, and are there for whoever resumes the run.
        return [(s.saved(self._checkpoint.folder) if isinstance(s, VariableSplit) else s, name) for s, name in splits]

    def _map(self, state: State, job: Any, sink: ShuffleTo | WriteTo, stagings: Mapping[str, Staging]) -> StageResult:
        calls = []
        for number, (split, name) in enumerate(state.splits):
            to = self._write_to(stagings, number, with_keys=False) if isinstance(sink, WriteTo) else sink
            pending = getattr(split, "pending", None)
            if pending is None:
                calls.append(Call(number, map_task, (job, split, name, self._step(to))))
            else:
                calls.append(Call(number, map_pending, (job, split, name, self._step(to), pending)))
        result = self._scheduler.run("map", calls, self._stays(sink), self._accept)
        self._stages.append(("map", result))
        self._check_bad_share(result)
        return result

    def _reduce(
        self,
        stage: int,
        state: State,
        job: Any,
        maps: StageResult,
        stagings: Mapping[str, Staging],
        last: bool,
    ) -> StageResult:
        name = suffixed("reduce", stage)
        groups = self._groups(stage, state, [done.value for done in maps.done])
        calls = []
        for number, buckets in enumerate(groups):
            sink: ShuffleTo | WriteTo
            if last:
                sink = self._write_to(stagings, number, with_keys=len(groups) > 1)
            else:
                sink = ShuffleTo(stage + 1, state.buckets)
            segments = self._segments(maps, buckets)
            calls.append(Call(number, reduce_task, (job, stage, segments, self._step(sink))))
        result = self._scheduler.run(name, calls, not last and self._stays(sink), self._accept)
        self._stages.append((name, result))
        return result

    def _groups(self, stage: int, state: State, outputs: Sequence[Any]) -> Sequence[range]:
        """The buckets of each reduce task."""
        if self._options.get("reducers") or state.job.outline.stages[stage - 1].has_partition:
            return [range(i, i + 1) for i in range(state.buckets)]
        by_bucket = [[segment for buckets in outputs for segment in buckets[i]] for i in range(state.buckets)]
        sizes = [sum(segment.memory for segment in segments) for segments in by_bucket]
        fitting = sum(segment.memory / TASK_BYTES[segment.form] for segments in by_bucket for segment in segments)
        wanted = max(TASKS_PER_SLOT * state.slots, int(fitting))
        return runs_of_buckets([size + 1 for size in sizes], wanted)

    def _segments(self, maps: StageResult, buckets: range) -> list[Any]:
        if maps.kept:
            return [self._scheduler.submit(select, kept, list(buckets), label="shuffle") for kept in maps.kept]
        segments: list[Segment] = []
        for done in maps.done:
            for bucket in buckets:
                segments += done.value[bucket]
        return segments

    def _stays(self, sink: ShuffleTo | WriteTo) -> bool:
        return not self._shared and isinstance(sink, ShuffleTo)

    def _step(self, sink: ShuffleTo | WriteTo) -> Step:
        sort = self._options.get("sort")
        return Step(
            sink,
            self._checkpoint.folder if self._shared else None,
            Limits(self._plan.resources.memory),
            self._options.get("max_bad"),
            descending=sort == "desc",
            must_sort=sort is not None,
            keys=tuple(self._options.get("key") or ()),
        )

    def _write_to(self, stagings: Mapping[str, Staging], number: int, with_keys: bool) -> WriteTo:
        writers = {
            target.name: stagings[target.name].writer(number) if target.name in stagings else None
            for target in self._targets
        }
        return WriteTo(writers, with_keys)

    def _stagings(self, stack: ExitStack) -> dict[str, Staging]:
        overwrite = bool(self._options.get("overwrite"))
        made = {}
        for target in self._targets:
            if target.path is not None:
                # A run that died may have shown its output already.
                path = check_target(target.path, overwrite or self._context.resumed)
                by = tuple(self._options.get("partition_by") or ()) if target.name == MAIN else ()
                staging = Staging(path, self._context.run, overwrite, self._context.resumed, by)
                made[target.name] = stack.enter_context(staging)
        return made

    def _accept(self, done: Done) -> None:
        """Look at a result as it comes: bad records count over all tasks."""
        if done.report.bad is None:
            return
        self._bad.append(done.report.bad)
        limit, count = self._options.get("max_bad"), sum(file.records for file in self._bad)
        if isinstance(limit, int) and count > limit:
            raise too_many(count, limit, self._bad[0].first)

    def _check_bad_share(self, result: StageResult) -> None:
        limit, count = self._options.get("max_bad"), sum(file.records for file in self._bad)
        records = sum(done.report.records_in for done in result.done)
        if isinstance(limit, float) and count > limit * records:
            raise too_many(count, limit, self._bad[0].first)

    def _collected(self, done: Sequence[Done], stagings: Mapping[str, Staging]) -> dict[str, Any]:
        """The outputs that go to the notebook."""
        found: dict[str, Any] = {}
        for target in self._targets:
            if target.name in stagings:
                continue
            records = in_order([task.value[target.name] for task in done], self._options.get("sort") == "desc")
            found[target.name] = frame(records) if self._options.get("as") == "dataframe" else records
        return found

    def _parts(self, done: Sequence[Done], name: str, staging: Staging) -> list[Part]:
        parts: list[Part] = []
        for task in done:
            parts += task.value[name]
        return parts if staging.shown else self._in_one_schema(parts, name, staging)

    def _in_one_schema(self, parts: list[Part], name: str, staging: Staging) -> list[Part]:
        """The parts, those written again whose columns differ from what all have in common."""
        schemas = [part.schema for part in parts if part.schema is not None]
        if not schemas or all(schema.equals(schemas[0]) for schema in schemas):
            return parts
        common = common_schema(schemas, str(staging.target))
        different = [i for i, part in enumerate(parts) if part.schema is not None and not part.schema.equals(common)]
        arguments = [(staging.attempts, staging.format, parts[i], common) for i in different]
        calls = [Call(number, rewritten, given) for number, given in enumerate(arguments)]
        result = self._scheduler.run(f"write {name}".strip(), calls)
        for i, task in zip(different, result.done, strict=True):
            parts[i] = task.value
        return parts

    def _summarise(self, datasets: Mapping[str, Dataset], results: Mapping[str, Any]) -> None:
        path = self._context.directory / "bad.jsonl"
        if self._bad:
            save(self._bad, path)
        outputs = {}
        for target in self._targets:
            dataset = datasets.get(target.name)
            if dataset is not None:
                outputs[target.name] = {"target": str(dataset.path), "rows": dataset.rows, "bytes": dataset.bytes}
            else:
                outputs[target.name] = {"target": "", "rows": len(results[target.name]), "bytes": 0}
        self._context.summarise(run_summary(self._stages, self._scheduler.counters, self._bad, path, outputs))


def rewritten(number: int, folder: Any, format: str, part: Part, schema: Any) -> Done:
    """A part written again in the schema that all parts share; runs on a worker."""
    return Done(rewrite(folder, format, part, schema), Report(records_out=part.rows))


def _input_names(plan: Plan) -> list[str]:
    return sorted({entry.name for entry in inputs_of(plan.options)})


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


def in_order(parts: Sequence[Rows], descending: bool = False) -> list[Any]:
    """All partitions' records in the order of their keys, else partition after partition."""
    lists: list[list[Any]] = [pickle.loads(part.content) for part in parts]
    joined = [record for records in lists for record in records]
    if len(parts) < 2 or any(part.keys is None for part in parts):
        return joined
    keys: list[Any] = []
    edges = [0]
    for part in parts:
        first = edges[-1]
        part_keys, ends = pickle.loads(part.keys or b"")
        keys += part_keys
        edges += [first + end for end in ends]
    if edges[-1] != len(joined):
        raise RunError("the records of a partition do not belong to its keys")
    try:
        # Each partition is sorted already, and Python's sort merges such runs.
        order = sorted(range(len(keys)), key=keys.__getitem__, reverse=descending)
    except TypeError:  # text in one partition, numbers in another
        return joined
    if edges == list(range(len(edges))):  # one record for each key
        return [joined[i] for i in order]
    return [record for i in order for record in joined[edges[i] : edges[i + 1]]]
