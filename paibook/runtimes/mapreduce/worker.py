"""What map and reduce tasks do on a worker."""

from __future__ import annotations

import pickle
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from operator import length_hint
from typing import Any

from paibook.data.batch import Batch
from paibook.data.parts import ROWS, Part, PartWriter
from paibook.data.splits import Split
from paibook.errors import UserCodeError
from paibook.runtimes.mapreduce.garbage import rare_collection
from paibook.runtimes.mapreduce.job import Function, Functions, Job, load, portable
from paibook.runtimes.mapreduce.mistakes import PAIRS, RECORDS, check_last, checked, explained
from paibook.runtimes.mapreduce.shuffle import Bucket, Buckets, Groups, merged, ordered

PENDING = 500_000  # values a map task holds before it combines them, or packs them away


@dataclass(frozen=True, slots=True)
class Rows:
    """A reduce task's records on their way to the notebook.

    Attributes:
        content: The pickled list of records.
        keys: The pickled keys in order where they can be compared, each with where its records end; else None.
    """

    content: bytes
    keys: bytes | None


def hold(job: Job) -> Job:
    """The job itself: as the result of a task it travels to each worker once, however many tasks need it."""
    return job


def select(buckets: list[Bucket], number: int) -> Bucket:
    """One reducer's bucket of a map task's output; runs where that output lies."""
    return buckets[number]


@rare_collection()
def map_task(number: int, job: Job, split: Split, partitions: int) -> list[Bucket]:
    """Map a split's records, combine what has the same key, and cut the result into one bucket per partition.

    Raises:
        UserCodeError: The program's function raised or yielded something wrong; names the record's file and line.
        DataError: A record cannot be read.
    """
    where = f"map task {number}"
    functions = load(job, where)
    map_ = checked(functions.map, "map", PAIRS)
    buckets = Buckets(partitions)
    groups: Groups = defaultdict(list)
    meter = _Meter(PENDING)
    for batch in split.batches():
        _map_batch(map_, batch, groups, where)
        if meter.is_full(groups, len(batch.records)):
            groups = _combined(functions, groups, where)
            if not meter.has_room(groups):
                _pack(buckets, groups, where)
                groups = defaultdict(list)
    _pack(buckets, _combined(functions, groups, where), where)
    return buckets.buckets


def _map_batch(map_: Function, batch: Batch, groups: Groups, where: str) -> None:
    """Add the pairs of a batch's records to ``groups``, which makes a missing key's list itself."""
    records = iter(batch.records)
    pair: Any = (None, None)
    try:
        for record in records:
            for pair in map_(record):
                key, value = pair
                groups[key].append(value)
        check_last(pair)
    except (Exception, SystemExit) as error:
        # The iterator knows how far it came: counting records would cost more than looking once.
        index = len(batch.records) - length_hint(records) - 1
        raise explained(error, f"{where}, {batch.place(index)}", "map", pair) from error


def _combined(functions: Functions, groups: Groups, where: str) -> Groups:
    """The groups after ``combine``; a lone value has nothing to be combined with and stays as it is."""
    if functions.combine is None or not groups:
        return groups
    combine = checked(functions.combine, "combine", PAIRS)
    made: Groups = defaultdict(list)
    pair: Any = (None, None)
    key = None
    try:
        for key, values in groups.items():
            if len(values) == 1:
                made[key].append(values[0])
                continue
            for pair in combine(key, values):
                new_key, value = pair
                made[new_key].append(value)
    except (Exception, SystemExit) as error:
        raise explained(error, f"{where}, key {key!r:.80}", "combine", pair) from error
    return made


def _pack(buckets: Buckets, groups: Groups, where: str) -> None:
    try:
        buckets.add(groups)
    except Exception as error:  # pickling runs the values' own code, which may raise anything
        message = f"what map yielded cannot be sent to a reducer: {type(error).__name__}: {error}"
        raise UserCodeError(where, "ProgramError", message, f"{where}: {message}\n") from error


class _Meter:
    """Tells when a map task holds too many values, counting them only as often as their number may have doubled."""

    def __init__(self, limit: int) -> None:
        self._least, self._limit = limit, limit
        self._since, self._next = 0, 0  # records seen since the last count, and before the next

    def is_full(self, groups: Groups, records: int) -> bool:
        self._since += records
        if self._since < self._next:
            return False
        held = sum(map(len, groups.values()))
        self._next = self._next + self._since if held < self._limit // 2 else 0
        self._since = 0
        return held >= self._limit

    def has_room(self, groups: Groups) -> bool:
        """Whether combining helped enough to go on with the same groups."""
        self._next = 0
        return 2 * sum(map(len, groups.values())) <= self._least


@rare_collection()
def reduce_task(
    number: int, job: Job, buckets: list[Bucket], writer: PartWriter | None = None, with_keys: bool = True
) -> Rows | Part | None:
    """Reduce one partition, key after key in order.

    Args:
        number: The partition.
        job: The program.
        buckets: One of each map task, in their order.
        writer: Where the records go; None brings them to the notebook.
        with_keys: Whether their keys come along, so that partitions can be put in order.

    Raises:
        UserCodeError: ``reduce`` raised, or returned something that is not an iterable of records; names the key.
        DataError: The records cannot be written.
    """
    where = f"reduce task {number}"
    functions = load(job, where)
    items, comparable = ordered(merged(buckets))
    keys = [key for key, _ in items] if writer is None else []
    reduced = _reduced(functions.reduce, items, where)
    if writer is not None:
        return _write(writer, reduced)
    records: list[Any] = []
    ends: list[int] = []
    for made in reduced:
        records.extend(made)
        ends.append(len(records))
    try:
        packed_keys = portable((keys, ends), functions.module) if comparable and with_keys else None
        return Rows(portable(records, functions.module), packed_keys)
    except Exception as error:  # pickling runs the records' own code, which may raise anything
        message = f"what reduce yielded cannot be sent to the notebook: {type(error).__name__}: {error}"
        raise UserCodeError(where, "ProgramError", message, f"{where}: {message}\n") from error


def records_of(rows: Rows) -> list[Any]:
    """The records a reduce task sent."""
    records: list[Any] = pickle.loads(rows.content)
    return records


def _reduced(function: Function, items: list[tuple[Any, list[Any]]], where: str) -> Iterator[list[Any]]:
    """The records of each key; empties ``items`` on the way, to hold no values longer than they are needed."""
    reduce_ = checked(function, "reduce", RECORDS)
    items.reverse()
    while items:
        key, values = items.pop()
        try:
            made = list(reduce_(key, values))
        except (Exception, SystemExit) as error:
            raise explained(error, f"{where}, key {key!r:.80}", "reduce") from error
        yield made


def _write(writer: PartWriter, reduced: Iterator[list[Any]]) -> Part | None:
    gathered: list[Any] = []
    records: list[Any] = []
    rows = 0
    for made in reduced:
        records += made
        if len(records) >= ROWS:
            gathered.append(writer.gather(records))
            rows += len(records)
            records = []
    if records:
        gathered.append(writer.gather(records))
    return writer.write(gathered, rows + len(records))
