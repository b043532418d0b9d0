"""The MapReduce driver: from a plan to tasks, and from their results to what the cell gives."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

from paibook.clusters.contract import Cluster, Event
from paibook.data.dataset import Dataset
from paibook.data.frames import common_schema, frame
from paibook.data.parts import Part, rewrite, write_empty
from paibook.data.staging import Staging, check_target, commit_all
from paibook.data.variables import VariableSplit
from paibook.errors import PlanError, ProgramError
from paibook.plan import Plan
from paibook.runtimes.contract import RunContext
from paibook.runtimes.mapreduce.bad_records import BadFile, save, too_many
from paibook.runtimes.mapreduce.balance import runs_of_buckets
from paibook.runtimes.mapreduce.checkpoint import Checkpoint, State
from paibook.runtimes.mapreduce.job import Job
from paibook.runtimes.mapreduce.limits import Limits
from paibook.runtimes.mapreduce.options import check_options, inputs_of, resources_of, targets_of
from paibook.runtimes.mapreduce.outline import Outline, StageOutline, outline, suffixed
from paibook.runtimes.mapreduce.picture import JobPicture
from paibook.runtimes.mapreduce.plan_inputs import plan_splits
from paibook.runtimes.mapreduce.report import Report
from paibook.runtimes.mapreduce.results import Results, in_order
from paibook.runtimes.mapreduce.scheduler import Call, Scheduler, StageResult
from paibook.runtimes.mapreduce.shuffle import Segment, of_relations
from paibook.runtimes.mapreduce.split_labels import split_label
from paibook.runtimes.mapreduce.steps import MAIN, Done, ShuffleTo, Step, WriteTo
from paibook.runtimes.mapreduce.summary import run_summary
from paibook.runtimes.mapreduce.worker import hold, map_pending, map_task, reduce_task, select

BUCKETS_PER_SLOT = 8  # fine enough for reduce tasks of equal size
TASKS_PER_SLOT = 2
TASK_BYTES = {"groups": 32 << 20, "table": 128 << 20}  # that a reduce task takes where nobody says how many there are


class Driver:
    """Drives ``%%pai_mapreduce`` from the notebook's process."""

    def check(self, plan: Plan) -> None:
        """Refuse a plan that cannot work: its functions, inputs, outputs, options and resources.

        Raises:
            ProgramError, PlanError, DataError, SyntaxError: Naming what is wrong.
        """
        if plan.resources.gpus_per_worker or plan.resources.cards:
            # Tasks share the cluster's worker processes, so that no card could be any one task's own.
            raise PlanError(
                f"%%pai_mapreduce gives its tasks no GPUs; got -g {plan.resources.gpus_per_worker}. Leave out -g to "
                "run on the CPU, or take %%pai_allreduce, whose ranks have cards of their own"
            )
        if plan.options.get("sql"):
            sql().statement(plan.program, _input_names(plan))
        else:
            outline(plan.program, _input_names(plan))
        check_options(plan.options)

    def check_resume(self, plan: Plan, directory: Path) -> None:
        """Refuse a run that has left no finished tasks: one that ended by itself.

        Raises:
            PlanError: It has left none.
        """
        if not (directory / "work").is_dir():
            raise PlanError("only one whose notebook ended before it did leaves its finished tasks")

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
        names, lines = stage_names(state.job.outline, self._plan)
        self._picture = JobPicture(names, lines, state.buckets, [split_label(split) for split, _ in state.splits])
        self._scheduler = Scheduler(tasks, context, window, backups, checkpoint, ahead, self._picture)
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
            results = [self._map(state, job, self._shuffle_to(1, state), stagings)]
            for stage in shape.stages:
                last = stage.number == len(shape.stages)
                results.append(self._reduce(stage, state, job, results, stagings, last))
            done = results[-1].done
        found = self._collected(done, stagings, state)
        self._context.check_cancelled()
        parts = [self._parts(done, name, staging, state.schema) for name, staging in stagings.items()]
        datasets = dict(zip(stagings, commit_all(list(stagings.values()), parts), strict=True))
        found.update(datasets)
        self._summarise(datasets, found)
        return found[MAIN] if len(self._targets) == 1 else Results(found)

    def _laid_out(self, slots: int) -> State:
        plan, context = self._plan, self._context
        if plan.options.get("sql"):
            return self._laid_out_query(slots)
        variables = {name: context.variables[name] for name in plan.push}
        job = Job.pack(
            context.run, plan.program, variables, plan.hyperparameters, _input_names(plan), resources_of(plan.options)
        )
        if self._shared:
            job = job.in_file(self._checkpoint.folder / "program")
        buckets = self._options.get("reducers") or BUCKETS_PER_SLOT * slots
        if job.outline.stages[0].has_partition:
            buckets = self._options.get("reducers") or TASKS_PER_SLOT * slots
        # Columns then need one type in all of an input's files.
        typed = any(name.startswith("map") for name in job.outline.of_tables)
        return State(job, self._splits(typed), buckets, slots)

    def _laid_out_query(self, slots: int) -> State:
        plan, context = self._plan, self._context
        splits = self._splits(typed=True)
        query = sql().planned(plan.program, _input_names(plan), splits, self._cluster.tasks())
        for line in query.told:
            context.emit(Event("stdout", "driver", -1, line + "\n"))
        job = Job.pack(context.run, query.program, query.variables, {}, shape=query.outline)
        if self._shared:
            job = job.in_file(self._checkpoint.folder / "program")
        buckets = self._options.get("reducers") or BUCKETS_PER_SLOT * slots
        return State(job, query.splits, buckets, slots, query.schema, query.types)

    def _splits(self, typed: bool) -> list[tuple[Any, str]]:
        splits = plan_splits(self._plan, self._context, self._cluster.tasks(), typed)
        if not self._shared:
            return splits
        # In files the items of variables need not travel with the tasks, and are there for whoever resumes the run.
        return [(s.saved(self._checkpoint.folder) if isinstance(s, VariableSplit) else s, name) for s, name in splits]

    def _map(self, state: State, job: Any, sink: ShuffleTo | WriteTo, stagings: Mapping[str, Staging]) -> StageResult:
        calls = []
        for number, (split, name) in enumerate(state.splits):
            to = self._write_to(stagings, number, with_keys=False) if isinstance(sink, WriteTo) else sink
            pending, weight = getattr(split, "pending", None), getattr(split, "weight", 0)
            if pending is None:
                calls.append(Call(number, map_task, (job, split, name, self._step(to)), weight))
            else:
                calls.append(Call(number, map_pending, (job, split, name, self._step(to), pending), weight))
        result = self._scheduler.run("map", calls, self._stays(sink), self._accept)
        self._stages.append(("map", result))
        self._check_bad_share(result)
        return result

    def _reduce(
        self,
        stage: StageOutline,
        state: State,
        job: Any,
        results: Sequence[StageResult],
        stagings: Mapping[str, Staging],
        last: bool,
    ) -> StageResult:
        name = suffixed("reduce", stage.number)
        # Relations may come from any stage before.
        earlier = results if stage.relations else results[-1:]
        groups = self._groups(stage, state, [done.value for result in earlier for done in result.done])
        self._picture.take_buckets(groups)
        calls = []
        for number, buckets in enumerate(groups):
            sink: ShuffleTo | WriteTo
            if last:
                sink = self._write_to(stagings, number, with_keys=len(groups) > 1)
            else:
                sink = self._shuffle_to(stage.number + 1, state)
            segments = [segment for result in earlier for segment in self._segments(result, buckets, stage.relations)]
            weight = sum(getattr(segment, "length", 0) for segment in segments)
            calls.append(Call(number, reduce_task, (job, stage.number, segments, self._step(sink)), weight))
        result = self._scheduler.run(name, calls, not last and self._stays(sink), self._accept)
        self._stages.append((name, result))
        return result

    def _shuffle_to(self, stage: int, state: State) -> ShuffleTo:
        gathered = {name for s in state.job.outline.stages if s.gathers for name in s.relations}
        return ShuffleTo(stage, state.buckets, frozenset(gathered))

    def _groups(self, stage: StageOutline, state: State, outputs: Sequence[Any]) -> Sequence[range]:
        """The buckets of each reduce task."""
        if stage.gathers:
            return [range(1)]
        if self._options.get("reducers") or stage.has_partition:
            return [range(i, i + 1) for i in range(state.buckets)]
        sizes, fitting = [0] * state.buckets, 0.0
        for buckets in outputs:
            for bucket, segments in enumerate(buckets):
                for segment in of_relations(segments, stage.relations):
                    sizes[bucket] += segment.memory
                    fitting += segment.memory / TASK_BYTES[segment.form]
        wanted = max(TASKS_PER_SLOT * state.slots, int(fitting))
        return runs_of_buckets([size + 1 for size in sizes], wanted)

    def _segments(self, maps: StageResult, buckets: range, relations: Sequence[str]) -> list[Any]:
        if maps.kept:
            wanted = list(buckets)
            return [self._scheduler.submit(select, kept, wanted, relations, label="shuffle") for kept in maps.kept]
        segments: list[Segment] = []
        for done in maps.done:
            for bucket in buckets:
                segments += of_relations(done.value[bucket], relations)
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
        return WriteTo(writers, with_keys, as_table=bool(self._options.get("sql")))

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

    def _collected(self, done: Sequence[Done], stagings: Mapping[str, Staging], state: State) -> dict[str, Any]:
        """The outputs that go to the notebook."""
        found: dict[str, Any] = {}
        for target in self._targets:
            if target.name in stagings:
                continue
            if state.schema is not None:
                contents = [task.value[target.name].content for task in done]
                found[target.name] = sql().result(contents, state.schema, state.types, self._options.get("as"))
                continue
            records = in_order([task.value[target.name] for task in done], self._options.get("sort"))
            found[target.name] = frame(records) if self._options.get("as") == "dataframe" else records
        return found

    def _parts(self, done: Sequence[Done], name: str, staging: Staging, schema: Any) -> list[Part]:
        parts: list[Part] = []
        for task in done:
            parts += task.value[name]
        if not parts and schema is not None and not staging.shown:
            return [write_empty(staging.attempts, staging.format, schema)]
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


def sql() -> ModuleType:
    """What runs queries, loaded when a cell has one.

    Raises:
        ProgramError: DuckDB or sqlglot is not installed.
    """
    try:
        return importlib.import_module("paibook.runtimes.mapreduce.sql.cells")
    except ModuleNotFoundError as error:
        if error.name not in ("duckdb", "sqlglot"):
            raise
        message = f"--sql needs {error.name}; install it with `pip install 'paibook[sql]'`, for the workers too"
        raise ProgramError(message) from error


def stage_names(shape: Outline, plan: Plan) -> tuple[list[str], dict[str, dict[str, int]]]:
    """The stages of a cell, and for each the functions that it calls with their lines in the cell."""
    shuffles = () if shape.is_map_only else shape.stages
    calls = {"map": ["map", *(f"map_{name}" for name in shape.mappers)]}
    for stage in shuffles:
        calls[suffixed("reduce", stage.number)] = [suffixed("reduce", stage.number), suffixed("map", stage.number + 1)]
    defined = {} if plan.options.get("sql") else plan.program.functions()
    lines = {stage: {name: defined[name].lineno for name in names if name in defined} for stage, names in calls.items()}
    return list(calls), lines


def rewritten(number: int, folder: Any, format: str, part: Part, schema: Any) -> Done:
    """A part written again in the schema that all parts share; runs on a worker."""
    return Done(rewrite(folder, format, part, schema), Report(records_out=part.rows))


def _input_names(plan: Plan) -> list[str]:
    return sorted({entry.name for entry in inputs_of(plan.options)})
