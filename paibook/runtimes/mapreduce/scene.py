"""A running task with everything it needs: where its records go, what is known of earlier attempts, its report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from paibook.runtimes.mapreduce.attempts import Attempt
from paibook.runtimes.mapreduce.batch_tasks import takes_tables
from paibook.runtimes.mapreduce.collector import Collector
from paibook.runtimes.mapreduce.job import Function, Functions, Job, StageFunctions, load
from paibook.runtimes.mapreduce.mistakes import check_pair, explained, said
from paibook.runtimes.mapreduce.records import RecordSink
from paibook.runtimes.mapreduce.report import Report, Reporter
from paibook.runtimes.mapreduce.shuffle import ShuffleWriter
from paibook.runtimes.mapreduce.steps import Done, ShuffleTo, Step
from paibook.runtimes.mapreduce.table_collector import TableCollector
from paibook.runtimes.mapreduce.task import Task, running


@dataclass(frozen=True, slots=True)
class Scene:
    """A running task with everything it needs."""

    where: str
    functions: Functions
    task: Task
    step: Step
    attempt: Attempt
    reporter: Reporter
    sink: Collector | TableCollector | RecordSink
    budget: int

    @property
    def report(self) -> Report:
        return self.reporter.report


@contextmanager
def open_scene(
    stage: str, number: int, job: Job, step: Step, of_tables: bool = False, input: str = ""
) -> Iterator[Scene]:
    """Set a task's scene, calling the cell's ``setup``; a task that fails leaves nothing written.

    Args:
        stage, number: Name the task.
        job, step: Its program, and what to do with what it yields.
        of_tables: Whether it handles whole tables.
        input: The named input its records are of.
    """
    where = f"{stage} task {number}"
    functions = load(job, where)
    task = Task(stage, number, functions.resources, step.folder, step.limits.budget())
    report = Report()
    budget = step.limits.budget()
    if stage != "map":
        budget //= 2  # the other half is for the groups that are reduced
    folder = None if step.folder is None else step.folder / "attempts" / f"{stage}-{number}"
    with running(task), Attempt(folder) as attempt:
        writer = None
        sink: Collector | TableCollector | RecordSink
        if isinstance(step.sink, ShuffleTo):
            writer = ShuffleWriter(step.folder, step.sink.buckets, f"{stage}-{number}")
            following = functions.stages[step.sink.stage - 1]
            if of_tables and (stage == "map" or _shuffles_tables(following)):
                gathered = step.sink.gathered
                sink = TableCollector(following, step.keys, writer, budget, where, report, input, bool(input), gathered)
            else:
                sink = Collector(following, writer, budget, where, report)
        else:
            sink = RecordSink(step.sink, functions.module, where, report, budget)
        scene = Scene(where, functions, task, step, attempt, Reporter(report, task.counters), sink, budget)
        try:
            _call_hook(scene, functions.setup, "setup")
            yield scene
        except BaseException:
            if writer is not None:
                writer.abort()
            if isinstance(sink, RecordSink):
                sink.abort()
            raise


def _call_hook(scene: Scene, hook: Function | None, name: str) -> Any:
    if hook is None:
        return None
    try:
        made = hook(scene.task)
        return list(made) if made is not None and name == "cleanup" else None
    except (Exception, SystemExit) as error:
        raise explained(error, scene.where, name) from error


def clean_up(scene: Scene) -> None:
    """Call the cell's ``cleanup`` and take what it yields.

    Raises:
        UserCodeError: It raised, or yielded what the task cannot take.
    """
    made = _call_hook(scene, scene.functions.cleanup, "cleanup")
    if not made:
        return
    sink = scene.sink
    if isinstance(sink, RecordSink):
        sink.add(made)
        return
    if isinstance(sink, TableCollector):
        message = "cleanup(task) yielded pairs, but map returns tables; yield nothing there"
        raise said(scene.where, message)
    pair: Any = None
    try:
        for pair in made:
            check_pair(pair, "cleanup")
            key, value = pair
            hash(key)
            sink.pending.append((key, value))
    except Exception as error:
        raise explained(error, scene.where, "cleanup", pair, of_pairs=True) from error
    sink.added()


def done(scene: Scene, comparable: bool) -> Done:
    """The task's result; ``comparable`` says whether keys came in their order."""
    sink = scene.sink
    value = sink.close(comparable) if isinstance(sink, RecordSink) else sink.close()
    return Done(value, scene.reporter.close())


def _shuffles_tables(following: StageFunctions) -> bool:
    mapper = following.mapper("")
    return mapper is None or takes_tables(mapper)


def count_table(scene: Scene, rows: Any) -> None:
    """Count the rows of a table that was read, and report."""
    scene.report.records_in += rows.num_rows
    scene.report.bytes_in += rows.nbytes
    scene.reporter.tick()
