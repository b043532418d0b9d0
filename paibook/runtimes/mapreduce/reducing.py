"""Reducing, key after key; and where records go: to an output, or through the next mapper to its shuffle."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any

from paibook.runtimes.mapreduce.attempts import fatal_text
from paibook.runtimes.mapreduce.batch_tasks import map_tables, takes_tables
from paibook.runtimes.mapreduce.collector import Collector
from paibook.runtimes.mapreduce.job import StageFunctions
from paibook.runtimes.mapreduce.mistakes import PAIRS, RECORDS, check_pair, checked, explained, said
from paibook.runtimes.mapreduce.outline import suffixed
from paibook.runtimes.mapreduce.pairs import dicts_of
from paibook.runtimes.mapreduce.records import RecordSink
from paibook.runtimes.mapreduce.scene import Scene, count_table
from paibook.runtimes.mapreduce.spilled_values import in_order
from paibook.runtimes.mapreduce.table_collector import TableCollector

KEYS_BETWEEN_TICKS = 4096
AT_ONCE = 1000  # records of a key handed on together: a key may give more than memory holds


def reduce_all(scene: Scene, functions: StageFunctions, stage: int, items: Iterator[tuple[Any, Sequence[Any]]]) -> None:
    """Call ``reduce`` with each key and its values.

    Raises:
        UserCodeError: It raised, or returned something that is not an iterable of records; names the key.
    """
    name = suffixed("reduce", stage)
    assert functions.reduce is not None
    reduce_ = checked(functions.reduce, name, RECORDS)
    if isinstance(scene.sink, RecordSink) and not scene.sink.with_keys and not scene.attempt.careful:
        _reduce_at_speed(scene, functions, name, reduce_, items)
        return
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


def _reduce_at_speed(
    scene: Scene, functions: StageFunctions, name: str, reduce_: Any, items: Iterator[tuple[Any, Sequence[Any]]]
) -> None:
    """Without a step of our own for each key, where nobody asks which records are whose."""
    at: list[Any] = []  # the key whose records come, if any
    order, tick, sink = functions.order, scene.reporter.tick, scene.sink
    assert isinstance(sink, RecordSink)

    def reduced() -> Iterator[Iterable[Any]]:
        for count, (key, values) in enumerate(items):
            at.append(key)
            yield reduce_(key, values if order is None else in_order(values, order))
            at.clear()
            if not count % KEYS_BETWEEN_TICKS:
                tick()

    records = chain.from_iterable(reduced())
    more = True
    while more:
        before, room = len(sink.pending), sink.room
        try:
            sink.pending.extend(islice(records, room))
        except (Exception, SystemExit) as error:
            if not at:  # not the cell's: the groups could not be read
                raise
            if isinstance(error, RuntimeError) and isinstance(error.__cause__, StopIteration):
                error = error.__cause__  # raised by a reduce that is no generator
            raise explained(error, f"{scene.where}, key {at[0]!r:.80}", name) from error
        more = len(sink.pending) - before == room
        sink.added()


def _moved(records: Iterator[Any], to: list[Any]) -> bool:
    """Append some of the records; False where these were the last."""
    before = len(to)
    to.extend(islice(records, AT_ONCE))
    return len(to) - before == AT_ONCE


def _receiver(scene: Scene, stage: int) -> tuple[list[Any], Callable[[Any], None]]:
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


def _taker(scene: Scene, stage: int) -> Any:
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
    giver = name if map_ is not None else suffixed("reduce", stage)
    append = sink.pending.append

    def take(made: list[Any], key: Any) -> None:
        pair: Any = (None, None)
        try:
            for record in made:
                for pair in (record,) if map_ is None else map_(record):
                    if type(pair) is not tuple:
                        check_pair(pair, giver)
                    new_key, value = pair
                    hash(new_key)
                    append((new_key, value))
        except (Exception, SystemExit) as error:
            raise explained(error, f"{scene.where}, key {key!r:.80}", giver, pair, of_pairs=True) from error
        sink.added()

    return take


def table_taker(scene: Scene) -> Callable[[Mapping[str, Any]], None]:
    """What takes the tables that map returned."""
    sink = scene.sink
    if isinstance(sink, RecordSink):
        return sink.add_tables
    assert isinstance(sink, TableCollector)
    return sink.add


def next_taker(scene: Scene, stage: int) -> Callable[[Mapping[str, Any]], None]:
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
            mapper, name, made.values(), sink.add, scene.where, scene.attempt, partial(count_table, scene)
        )
    take = _taker(scene, stage)

    def take_rows(made: Mapping[str, Any]) -> None:
        for rows in made.values():
            take(dicts_of(rows), None)

    return take_rows
