"""Mapping: a split's records, batch by batch, at full speed or with an eye on each."""

from __future__ import annotations

from itertools import chain, islice
from operator import length_hint
from typing import Any

from paibook.data.batch import Batch
from paibook.errors import UserCodeError
from paibook.runtimes.mapreduce.attempts import fatal_text
from paibook.runtimes.mapreduce.bad_records import BadRecords
from paibook.runtimes.mapreduce.collector import Collector
from paibook.runtimes.mapreduce.job import Function
from paibook.runtimes.mapreduce.mistakes import check_last, explained, said
from paibook.runtimes.mapreduce.pair_columns import AT_ONCE as PAIRS_AT_ONCE
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
