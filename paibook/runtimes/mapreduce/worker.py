"""What map and reduce tasks do on a worker."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from paibook.runtimes.mapreduce.bad_records import BadRecords
from paibook.runtimes.mapreduce.batch_tasks import is_of_tables, map_tables, reduced_tables, takes_tables
from paibook.runtimes.mapreduce.garbage import rare_collection
from paibook.runtimes.mapreduce.job import Job, load
from paibook.runtimes.mapreduce.mapping import RecordMapper
from paibook.runtimes.mapreduce.mistakes import PAIRS, RECORDS, UNSORTED, checked, said
from paibook.runtimes.mapreduce.outline import suffixed
from paibook.runtimes.mapreduce.reduce_groups import items_of, spill_folder
from paibook.runtimes.mapreduce.reducing import next_taker, reduce_all, table_taker
from paibook.runtimes.mapreduce.scene import clean_up, count_table, done, open_scene
from paibook.runtimes.mapreduce.shuffle import Segment, of_relations
from paibook.runtimes.mapreduce.steps import Done, Step
from paibook.runtimes.mapreduce.unsendable import Unsendable, located


def hold(job: Job) -> Job:
    """The job itself: as the result of a task it travels to each worker once, however many tasks need it."""
    return job


def described(done: Done) -> Done:
    """A task's result without the bytes it holds; runs where they lie."""
    return done.without_content()


def select(done: Done, buckets: Sequence[int], relations: Sequence[str] = ()) -> Sequence[Segment]:
    """Some buckets of a map task's output, or some relations' rows in them; runs where that output lies."""
    return of_relations([segment for bucket in buckets for segment in done.value[bucket]], relations)


@rare_collection()
def map_task(number: int, job: Job, split: Any, input: str, step: Step) -> Done:
    """Map a split's records and hand on what they give.

    Args:
        number: The task, counted over all inputs.
        job: The program.
        split: Its records.
        input: The name of the input it belongs to, or ``""``.
        step: What to do with the pairs, or, where the cell does not reduce, with the records.

    Raises:
        UserCodeError: The program's function raised or yielded something wrong; names the record's file and line.
        DataError: A record cannot be read, too many are bad, or the disk is full.
    """
    name = f"map_{input}" if input in job.outline.mappers else "map"
    mapper = load(job, f"map task {number}").stages[0].mapper(input)
    assert mapper is not None
    of_tables = takes_tables(mapper)
    with open_scene("map", number, job, step, of_tables, input) as scene:
        if of_tables:
            map_tables(
                mapper,
                name,
                split.tables(),
                table_taker(scene),
                scene.where,
                scene.attempt,
                partial(count_table, scene),
            )
            clean_up(scene)
            return done(scene, False)
        bad = BadRecords(step.max_bad) if step.max_bad is not None else None
        mapper = checked(mapper, name, PAIRS if not job.outline.is_map_only else RECORDS)
        mapping = RecordMapper(scene, mapper, name, bad)
        try:
            for batch in split.batches():
                mapping.run(batch)
            clean_up(scene)
            if bad is not None:
                scene.report.bad = bad.file()
            return done(scene, False)
        except Unsendable as error:
            raise located(error, scene.where, split.batches(), mapper, name) from error


def map_pending(number: int, job: Job, split: Any, input: str, step: Step, value: Any) -> Done:
    """As ``map_task``, for a split whose value was computed on the cluster and comes as the last argument."""
    return map_task(number, job, split.with_value(value), input, step)


@rare_collection()
def reduce_task(number: int, job: Job, stage: int, segments: list[Any], step: Step) -> Done:
    """Reduce one partition, key after key, in order where keys can be compared.

    Args:
        number: The partition.
        job: The program.
        stage: Its number, from 1.
        segments: The partition's, in the order of the map tasks; lists of them are joined.
        step: What to do with the records.

    Raises:
        UserCodeError: ``reduce`` raised, or returned something that is not an iterable of records; names the key.
        DataError: The records cannot be written.
    """
    flat = [s for item in segments for s in (item if isinstance(item, list) else [item])]
    name = suffixed("reduce", stage)
    functions = load(job, f"{name} task {number}").stages[stage - 1]
    relations = job.outline.stages[stage - 1].relations
    of_tables = is_of_tables(functions, flat)
    with open_scene(name, number, job, step, of_tables) as scene:
        scene.report.bytes_in = sum(segment.length for segment in flat)
        if of_tables:
            scene.report.records_in = sum(segment.values for segment in flat)
            if flat or relations:  # of no rows at all, a query may still make one
                made = reduced_tables(functions, name, flat, step.keys, relations, scene.where, scene.report)
                next_taker(scene, stage)(made)
            clean_up(scene)
            return done(scene, False)
        with spill_folder(step) as folder:
            items, comparable = items_of(scene, functions, flat, folder)
            if step.must_sort and not comparable:
                raise said(scene.where, UNSORTED)
            reduce_all(scene, functions, stage, items)
        clean_up(scene)
        return done(scene, comparable)
