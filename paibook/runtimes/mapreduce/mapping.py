"""Mapping: a split's records, batch by batch, at full speed or with an eye on each."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from operator import length_hint
from typing import Any

from paibook.data.batch import Batch
from paibook.errors import UserCodeError
from paibook.runtimes.mapreduce.attempts import fatal_text
from paibook.runtimes.mapreduce.bad_records import BadRecords
from paibook.runtimes.mapreduce.collector import Collector
from paibook.runtimes.mapreduce.job import Function
from paibook.runtimes.mapreduce.mistakes import check_pair, explained, said
from paibook.runtimes.mapreduce.records import RecordSink
from paibook.runtimes.mapreduce.scene import Scene
from paibook.runtimes.mapreduce.table_collector import TableCollector


class RecordMapper:
    """Maps batches. At full speed, errors are looked into afterwards; with an eye on each record where a record may be
    skipped, or where an earlier attempt died."""

    def __init__(self, scene: Scene, mapper: Function, name: str, bad: BadRecords | None) -> None:
        self._scene, self._mapper, self._name, self._bad = scene, mapper, name, bad
        self._position = 0
        self._watched = bad is not None or scene.attempt.careful
        self._copies = False  # whether it yields lists, which it may fill anew for the next pair

    def run(self, batch: Batch) -> None:
        """Map the records, and hand on what they give, no more at a time than the sink has room for."""
        sink = self._scene.sink
        assert not isinstance(sink, TableCollector)
        if self._watched:
            self._watch(batch)
            self._count(len(batch.records))
        elif isinstance(sink, Collector):
            self._pairs(batch, sink)
        else:
            start = 0
            while start < len(batch.records):
                some = batch.cut(start, start + sink.room)
                self._records(some, sink)
                self._count(len(some.records))
                start += len(some.records)

    def _count(self, records: int) -> None:
        self._position += records
        self._scene.report.records_in += records
        self._scene.reporter.tick()

    def _pairs(self, batch: Batch, sink: Collector) -> None:
        records, left = iter(batch.records), len(batch.records)
        made: Iterator[Any] = chain.from_iterable(map(self._mapper, records))
        if self._copies:
            made = map(_copied, made)
        passed = 0  # pairs
        while True:
            pairs: list[Any] = []
            try:
                pairs.extend(islice(made, sink.room))
            except (Exception, SystemExit) as error:
                self._refuse_mistakes(batch, passed, pairs)
                raise self._explained(error, batch, records, (None, None)) from error
            self._count(left - length_hint(records))
            left = length_hint(records)
            if not pairs:
                return
            try:
                sink.add_pairs(pairs)
            except (TypeError, ValueError):
                self._refuse_mistakes(batch, passed, pairs)
                raise
            if not self._copies and list in set(map(type, pairs)):
                self._copies, made = True, map(_copied, made)
            passed += len(pairs)

    def _refuse_mistakes(self, batch: Batch, passed: int, pairs: list[Any]) -> None:
        """Find what is no pair, among those that the batch gave after the first ``passed``.

        Raises:
            UserCodeError: Naming its record.
        """
        for number, pair in enumerate(pairs, passed):
            try:
                check_pair(pair, self._name)
                key, _value = pair
                hash(key)
            except Exception as error:  # hashing runs the key's own code, which may raise anything
                place = batch.place(self._giver(batch, number))
                raise explained(error, f"{self._scene.where}, {place}", self._name, pair) from error

    def _giver(self, batch: Batch, number: int) -> int:
        """Which record gave the batch's pair of a number, seen by mapping them once more."""
        for index, record in enumerate(batch.records):
            try:
                number -= sum(1 for _ in self._mapper(record))
            except (Exception, SystemExit):  # it gave this pair before it raised
                return index
            if number < 0:
                return index
        return 0

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
                        if type(pair) is not tuple:
                            check_pair(pair, self._name)
                        key, value = pair
                        hash(key)
                        made.append((key, value))
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


def _copied(pair: Any) -> Any:
    return tuple(pair) if type(pair) is list and len(pair) == 2 else pair
