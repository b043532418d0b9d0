"""What map and reduce tasks do on a worker."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from operator import length_hint
from pathlib import Path
from typing import Any

from paibook.data.batch import Batch
from paibook.errors import UserCodeError
from paibook.runtimes.mapreduce.attempts import Attempt, fatal_text
from paibook.runtimes.mapreduce.bad_records import BadRecords
from paibook.runtimes.mapreduce.batch_tasks import is_of_tables, map_tables, mixed_blocks, reduced_tables, takes_tables
from paibook.runtimes.mapreduce.collector import Collector
from paibook.runtimes.mapreduce.column_groups import ColumnGroups
from paibook.runtimes.mapreduce.external import grouped
from paibook.runtimes.mapreduce.garbage import rare_collection
from paibook.runtimes.mapreduce.job import Function, Functions, Job, StageFunctions, load
from paibook.runtimes.mapreduce.largest_keys import largest_of, watched
from paibook.runtimes.mapreduce.mistakes import PAIRS, RECORDS, check_last, checked, explained, said
from paibook.runtimes.mapreduce.outline import suffixed
from paibook.runtimes.mapreduce.pair_columns import AT_ONCE as PAIRS_AT_ONCE
from paibook.runtimes.mapreduce.records import RecordSink
from paibook.runtimes.mapreduce.report import Report, Reporter
from paibook.runtimes.mapreduce.runs import Spills
from paibook.runtimes.mapreduce.shuffle import Segment, ShuffleWriter, emptying, merged, ordered
from paibook.runtimes.mapreduce.spilled_values import in_order
from paibook.runtimes.mapreduce.steps import Done, ShuffleTo, Step
from paibook.runtimes.mapreduce.table_collector import TableCollector
from paibook.runtimes.mapreduce.task import Task, running
from paibook.runtimes.mapreduce.unsendable import Unsendable, located

KEYS_BETWEEN_TICKS = 4096
AT_ONCE = 1000  # records of a key handed on together: a key may give more than memory holds


def hold(job: Job) -> Job:
    """The job itself: as the result of a task it travels to each worker once, however many tasks need it."""
    return job


def described(done: Done) -> Done:
    """A task's result without the bytes it holds; runs where they lie."""
    return done.without_content()


def select(done: Done, buckets: Sequence[int], relations: Sequence[str] = ()) -> list[Segment]:
    """Some buckets of a map task's output, or some relations' rows in them; runs where that output lies."""
    found = [segment for bucket in buckets for segment in done.value[bucket]]
    return [segment for segment in found if segment.input in relations] if relations else found


@dataclass(frozen=True, slots=True)
class _Scene:
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
    with _scene("map", number, job, step, of_tables, input) as scene:
        if of_tables:
            map_tables(
                mapper, name, split.tables(), _table_taker(scene), scene.where, scene.attempt, partial(_count, scene)
            )
            _clean_up(scene)
            return _done(scene, False)
        bad = BadRecords(step.max_bad) if step.max_bad is not None else None
        mapper = checked(mapper, name, PAIRS if not job.outline.is_map_only else RECORDS)
        mapping = _Mapping(scene, mapper, name, bad)
        try:
            for batch in split.batches():
                mapping.run(batch)
            _clean_up(scene)
            if bad is not None:
                scene.report.bad = bad.file()
            return _done(scene, False)
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
    with _scene(name, number, job, step, of_tables) as scene:
        scene.report.bytes_in = sum(segment.length for segment in flat)
        if of_tables:
            scene.report.records_in = sum(segment.values for segment in flat)
            if flat or relations:  # of no rows at all, a query may still make one
                made = reduced_tables(functions, name, flat, step.keys, relations, scene.where, scene.report)
                _next_taker(scene, stage)(made)
            _clean_up(scene)
            return _done(scene, False)
        with _spill_folder(step) as folder:
            items, comparable = _items(scene, functions, flat, folder)
            if step.must_sort and not comparable:
                message = "--sort: the keys cannot be compared with each other; yield keys of one type"
                raise said(scene.where, message)
            _reduce_all(scene, functions, stage, items)
        _clean_up(scene)
        return _done(scene, comparable)


@contextmanager
def _scene(stage: str, number: int, job: Job, step: Step, of_tables: bool = False, input: str = "") -> Iterator[_Scene]:
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
        scene = _Scene(where, functions, task, step, attempt, Reporter(report, task.counters), sink, budget)
        try:
            _call_hook(scene, functions.setup, "setup")
            yield scene
        except BaseException:
            if writer is not None:
                writer.abort()
            if isinstance(sink, RecordSink):
                sink.abort()
            raise


def _call_hook(scene: _Scene, hook: Function | None, name: str) -> Any:
    if hook is None:
        return None
    try:
        made = hook(scene.task)
        return list(made) if made is not None and name == "cleanup" else None
    except (Exception, SystemExit) as error:
        raise explained(error, scene.where, name) from error


def _clean_up(scene: _Scene) -> None:
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
            key, value = pair
            hash(key)
            sink.pending.append((key, value))
    except Exception as error:
        raise explained(error, scene.where, "map", pair) from error
    sink.added()


def _done(scene: _Scene, comparable: bool) -> Done:
    sink = scene.sink
    value = sink.close(comparable) if isinstance(sink, RecordSink) else sink.close()
    return Done(value, scene.reporter.close())


def _shuffles_tables(following: StageFunctions) -> bool:
    mapper = following.mapper("")
    return mapper is None or takes_tables(mapper)


def _table_taker(scene: _Scene) -> Callable[[Mapping[str, Any]], None]:
    """What takes the tables that map returned."""
    sink = scene.sink
    if isinstance(sink, RecordSink):
        return sink.add_tables
    assert isinstance(sink, TableCollector)
    return sink.add


def _next_taker(scene: _Scene, stage: int) -> Callable[[Mapping[str, Any]], None]:
    """What takes the tables that a reduce returned: an output, or the next stage's mapper and shuffle."""
    sink = scene.sink
    if isinstance(sink, RecordSink):
        return sink.add_tables
    mapper = scene.functions.stages[stage].mapper("")
    if isinstance(sink, TableCollector):
        if mapper is None:
            return sink.add
        name = suffixed("map", stage + 1)
        return lambda made: map_tables(
            mapper, name, made.values(), sink.add, scene.where, scene.attempt, partial(_count, scene)
        )
    take = _taker(scene, stage)

    def take_rows(made: Mapping[str, Any]) -> None:
        for rows in made.values():
            take(rows.to_pylist(), None)

    return take_rows


def _count(scene: _Scene, rows: Any) -> None:
    scene.report.records_in += rows.num_rows
    scene.report.bytes_in += rows.nbytes
    scene.reporter.tick()


class _Mapping:
    """Maps batches. At full speed, errors are looked into afterwards; with an eye on each record where a record may be
    skipped, or where an earlier attempt died."""

    def __init__(self, scene: _Scene, mapper: Function, name: str, bad: BadRecords | None) -> None:
        self._scene, self._mapper, self._name, self._bad = scene, mapper, name, bad
        self._position = 0
        self._watched = bad is not None or scene.attempt.careful
        self._at_once = 16  # records mapped before their pairs are handed on

    def run(self, batch: Batch) -> None:
        """Map the records, no more at a time than the sink has room for what they give."""
        sink = self._scene.sink
        assert not isinstance(sink, TableCollector)
        start = 0
        while start < len(batch.records):
            stop = start + sink.room
            self._run(batch.cut(start, stop), sink)
            start = stop

    def _run(self, batch: Batch, sink: Collector | RecordSink) -> None:
        if self._watched:
            self._watch(batch)
        elif isinstance(sink, Collector):
            self._pairs(batch, sink)
        else:
            self._records(batch, sink)
        count = len(batch.records)
        self._position += count
        self._scene.report.records_in += count
        if isinstance(sink, Collector):
            sink.check(count)
        self._scene.reporter.tick()

    def _pairs(self, batch: Batch, sink: Collector) -> None:
        records, count, first = iter(batch.records), len(batch.records), 0
        while first < count:
            pairs: list[Any] = []
            try:
                pairs.extend(chain.from_iterable(map(self._mapper, islice(records, self._at_once))))
            except (Exception, SystemExit) as error:
                self._refuse_mistakes(batch, first, pairs)
                raise self._explained(error, batch, records, (None, None)) from error
            try:
                sink.add_pairs(pairs)
            except (TypeError, ValueError):
                self._refuse_mistakes(batch, first, pairs)
                raise
            taken = count - length_hint(records) - first
            self._at_once = max(1, min(PAIRS_AT_ONCE, PAIRS_AT_ONCE * taken // max(1, len(pairs)), 4 * taken))
            first += taken

    def _refuse_mistakes(self, batch: Batch, first: int, pairs: list[Any]) -> None:
        """Find what is no pair, among what the records from ``first`` on gave.

        Raises:
            UserCodeError: Naming its record.
        """
        for number, pair in enumerate(pairs):
            try:
                check_last(pair)
                key, _value = pair
                hash(key)
            except Exception as error:  # hashing runs the key's own code, which may raise anything
                place = batch.place(self._giver(batch, first, number))
                raise explained(error, f"{self._scene.where}, {place}", self._name, pair) from error

    def _giver(self, batch: Batch, first: int, number: int) -> int:
        """Which record from ``first`` on gave the pair of a number, seen by mapping them once more."""
        for index, record in enumerate(batch.records[first:], first):
            try:
                number -= len(list(self._mapper(record)))
            except (Exception, SystemExit):  # it gave this pair before it raised
                return index
            if number < 0:
                return index
        return first

    def _records(self, batch: Batch, sink: RecordSink) -> None:
        records = iter(batch.records)
        made: list[Any] = []
        try:
            for record in records:
                made.extend(self._mapper(record))
        except (Exception, SystemExit) as error:
            raise self._explained(error, batch, records, (None, None)) from error
        sink.add(made)

    def _explained(self, error: BaseException, batch: Batch, records: Any, pair: Any) -> UserCodeError:
        # The iterator knows how far it came: counting records would cost more than looking once.
        index = len(batch.records) - length_hint(records) - 1
        return explained(error, f"{self._scene.where}, {batch.place(index)}", self._name, pair)

    def _watch(self, batch: Batch) -> None:
        attempt, sink = self._scene.attempt, self._scene.sink
        assert not isinstance(sink, TableCollector)
        for index, record in enumerate(batch.records):
            position = self._position + index
            if position in attempt.fatal:
                self._skip(batch, index, fatal_text("this record"))
                continue
            attempt.at(position)
            pair: Any = (None, None)
            made: list[Any] = []
            try:
                if isinstance(sink, RecordSink):
                    made = list(self._mapper(record))
                else:
                    for pair in self._mapper(record):
                        key, value = pair
                        hash(key)
                        made.append((key, value))
                    check_last(pair)
            except (Exception, SystemExit) as error:
                reason = explained(error, f"{self._scene.where}, {batch.place(index)}", self._name, pair)
                if self._bad is None:
                    raise reason from error
                self._bad.add(batch.place(index), record, f"{reason.name}: {reason.message}")
                continue
            if isinstance(sink, RecordSink):
                sink.add(made)
                continue
            sink.pending.extend(made)
            sink.added()

    def _skip(self, batch: Batch, index: int, reason: str) -> None:
        place = batch.place(index)
        if self._bad is None:
            raise said(f"{self._scene.where}, {place}", f"{reason}; --max-bad 1 skips it", "RunError")
        self._bad.add(place, batch.records[index], reason)


def _items(
    scene: _Scene, functions: StageFunctions, segments: list[Segment], folder: Path
) -> tuple[Iterator[tuple[Any, Sequence[Any]]], bool]:
    """Keys with their values, from memory where the partition fits."""
    budget, report = scene.budget, scene.report
    report.records_in = sum(segment.values for segment in segments)
    if sum(segment.memory for segment in segments) <= budget:
        return _items_in_memory(scene, functions, segments)
    found_blocks = mixed_blocks(functions, segments, scene.step.keys)
    spills = Spills()
    combine = _joining(functions, scene.where)
    found, comparable = grouped(found_blocks, budget, folder, combine, scene.step.descending, spills)
    report.spills, report.spilled_bytes = spills.runs, spills.bytes
    return watched(found, report), comparable


def _items_in_memory(
    scene: _Scene, functions: StageFunctions, segments: list[Segment]
) -> tuple[Iterator[tuple[Any, Sequence[Any]]], bool]:
    descending = scene.step.descending
    if segments and all(segment.form == "groups" for segment in segments):
        groups = ColumnGroups(segments, descending)
        scene.report.largest = groups.largest()
        return iter(groups), groups.comparable
    items, comparable = ordered(merged(mixed_blocks(functions, segments, scene.step.keys)), descending)
    scene.report.largest = largest_of(items)
    return emptying(items), comparable


def _joining(functions: StageFunctions, where: str) -> Any:
    """The combiner for values of one key; None where there is none, or where it might change the key."""
    function = functions.pair_combiner
    if function is None:
        return None
    combine = checked(function, "combine", PAIRS)

    def join(key: Any, values: list[Any]) -> list[Any]:
        if len(values) < 2:
            return values
        try:
            made = list(combine(key, values))
        except (Exception, SystemExit) as error:
            raise explained(error, f"{where}, key {key!r:.80}", "combine") from error
        return [value for _, value in made] if all(k == key for k, _ in made) else values

    return join


@contextmanager
def _spill_folder(step: Step) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="spill-", dir=step.folder) as folder:
        yield Path(folder)


def _reduce_all(
    scene: _Scene, functions: StageFunctions, stage: int, items: Iterator[tuple[Any, Sequence[Any]]]
) -> None:
    name = suffixed("reduce", stage)
    assert functions.reduce is not None
    reduce_ = checked(functions.reduce, name, RECORDS)
    made, take = _receiver(scene, stage)
    attempt = scene.attempt
    for count, (key, values) in enumerate(items):
        if attempt.careful:
            if count in attempt.fatal:
                raise said(f"{scene.where}, key {key!r:.80}", fatal_text("this key"), "RunError")
            attempt.at(count)
        try:
            if functions.order is not None:
                values = in_order(values, functions.order)
            records = iter(reduce_(key, values))
            more = _moved(records, made)
        except (Exception, SystemExit) as error:
            raise explained(error, f"{scene.where}, key {key!r:.80}", name) from error
        take(key)
        while more:
            try:
                more = _moved(records, made)
            except (Exception, SystemExit) as error:
                raise explained(error, f"{scene.where}, key {key!r:.80}", name) from error
            take(key)
        if not count % KEYS_BETWEEN_TICKS:
            scene.reporter.tick()


def _moved(records: Iterator[Any], to: list[Any]) -> bool:
    """Append some of the records; False where these were the last."""
    before = len(to)
    to.extend(islice(records, AT_ONCE))
    return len(to) - before == AT_ONCE


def _receiver(scene: _Scene, stage: int) -> tuple[list[Any], Callable[[Any], None]]:
    """A list for the records of a key, and what is to be called when they are in it."""
    sink = scene.sink
    if isinstance(sink, RecordSink):
        return sink.pending, sink.added
    made: list[Any] = []
    take = _taker(scene, stage)

    def taken(key: Any) -> None:
        take(made, key)
        made.clear()

    return made, taken


def _taker(scene: _Scene, stage: int) -> Any:
    """What takes the records of a key: an output, or the next stage's mapper and shuffle."""
    sink = scene.sink
    if isinstance(sink, RecordSink):
        return sink.add
    assert isinstance(sink, Collector)
    following = scene.functions.stages[stage]
    mapper = following.mapper("")
    if takes_tables(mapper):
        message = f"map{stage + 1} takes tables, but the reduce before it yields records; let both take the same"
        raise said(scene.where, message)
    name = suffixed("map", stage + 1)
    map_ = None if mapper is None else checked(mapper, name, PAIRS)
    append = sink.pending.append
    pending = 0

    def take(made: list[Any], key: Any) -> None:
        nonlocal pending
        pair: Any = (None, None)
        try:
            for record in made:
                for pair in (record,) if map_ is None else map_(record):
                    new_key, value = pair
                    hash(new_key)
                    append((new_key, value))
            check_last(pair)
        except (Exception, SystemExit) as error:
            said = name if map_ is not None else f"map: reduce{stage if stage > 1 else ''}"
            raise explained(error, f"{scene.where}, key {key!r:.80}", said, pair) from error
        sink.added()
        pending += len(made)
        if pending >= sink.room:
            sink.check(pending)
            pending = 0

    return take
