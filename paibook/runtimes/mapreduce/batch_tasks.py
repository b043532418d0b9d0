"""Tasks of the fast path: mappers and reducers that take whole tables."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, repeat
from operator import attrgetter

import pyarrow

from paibook.runtimes.mapreduce.attempts import Attempt, fatal_text
from paibook.runtimes.mapreduce.batches import call, given, named
from paibook.runtimes.mapreduce.forms import Form, form_of
from paibook.runtimes.mapreduce.job import Function, StageFunctions
from paibook.runtimes.mapreduce.largest_keys import largest_among, largest_in
from paibook.runtimes.mapreduce.mistakes import explained, said
from paibook.runtimes.mapreduce.pairs import lists_of, table_of
from paibook.runtimes.mapreduce.reduction import Reducer
from paibook.runtimes.mapreduce.report import Report
from paibook.runtimes.mapreduce.shuffle import Block, Segment, blocks
from paibook.runtimes.mapreduce.table_shuffle import concat_tables, key_columns, unpack_table

TakeTable = Callable[[pyarrow.Table], None]
TakeRelations = Callable[[Mapping[str, pyarrow.Table]], None]


def takes_tables(function: Function | None) -> bool:
    """Whether a function of the cell is annotated for batches."""
    return function is not None and form_of(function) != "records"


def map_tables(
    mapper: Function,
    name: str,
    tables: Iterable[pyarrow.Table],
    take: TakeRelations,
    where: str,
    attempt: Attempt,
    tick: TakeTable,
) -> None:
    """Call a mapper with each of some tables.

    Args:
        mapper, name: The cell's function, and what it is called.
        tables: The rows.
        take: Gets what it returns, by relation.
        where: Names the task in errors.
        attempt: Learns which table comes now.
        tick: Called with each table that was read.

    Raises:
        UserCodeError: The mapper raised, returned no table, or a table ended its worker's process each time.
    """
    form: Form = form_of(mapper)
    for number, rows in enumerate(tables):
        place = f"{where}, table {number} of its input"
        if number in attempt.fatal:
            raise said(place, fatal_text("this table"), "RunError")
        attempt.at(number)
        try:
            made = named(mapper(given(form, rows)), name)
        except (Exception, SystemExit) as error:
            raise explained(error, place, name) from error
        take(made)
        tick(rows)


def is_of_tables(functions: StageFunctions, segments: Sequence[Segment]) -> bool:
    """Whether a partition is reduced as a table."""
    if takes_tables(functions.reduce):
        return True
    return functions.reducer is not None and bool(segments) and all(s.form == "table" for s in segments)


def reduced_tables(
    functions: StageFunctions,
    name: str,
    segments: Sequence[Segment],
    keys: Sequence[str],
    relations: Sequence[str],
    where: str,
    report: Report,
) -> Mapping[str, pyarrow.Table]:
    """Reduce one partition as a table, or as several; its largest keys are noted in the report.

    Args:
        functions, name: The stage's, and what its ``reduce`` is called.
        segments: The partition.
        keys: Key columns.
        relations: What ``reduce`` takes by name; those without rows are not among its arguments.
        where: Names the task in errors.
        report: Of the task.

    Returns:
        What it makes, by relation.

    Raises:
        UserCodeError: ``reduce`` raised, or returned no table.
    """
    try:
        if functions.reducer is not None:
            return {"": _reduced_buckets(functions.reducer, segments, keys, report)}
        function = functions.reduce
        assert function is not None
        if relations:
            tables = {relation: _tables([s for s in segments if s.input == relation], keys) for relation in relations}
            return named(function(**{name: concat_tables(some) for name, some in tables.items() if some}), name)
        inputs = _parameters(function)
        if len(inputs) == 1:
            rows = concat_tables(_tables(segments, keys))
            report.largest = largest_in(rows, key_columns(rows, keys, "map"))
            return {"": call(function, form_of(function), rows, name)}
        first, *others = (_tables_of_input(segments, keys, input, name) for input in inputs)
        return {"": call(function, form_of(function), first, name, *others)}
    except (Exception, SystemExit) as error:
        raise explained(error, where, name) from error


def _reduced_buckets(
    reducer: Reducer, segments: Sequence[Segment], keys: Sequence[str], report: Report
) -> pyarrow.Table:
    """Reduce one bucket after the other, so that only its rows are held and its keys stay in the processor's cache."""
    made = []
    for _, some in groupby(sorted(segments, key=attrgetter("bucket")), attrgetter("bucket")):
        rows = concat_tables([unpack_table(segment.read()) for segment in some])
        names = key_columns(rows, keys, "map")
        report.largest = largest_among([*report.largest, *largest_in(rows, names)])
        made.append(reducer.final(rows, names))
    return concat_tables(made)


def mixed_blocks(functions: StageFunctions, segments: Sequence[Segment], keys: Sequence[str]) -> Iterator[Block]:
    """A partition's groups, rows of tables among them, for a reducer that takes keys one by one."""
    for segment in segments:
        if segment.form != "table":
            yield from blocks([segment])
            continue
        rows = unpack_table(segment.read())
        if not rows.num_rows:
            continue
        names = key_columns(rows, keys, "map")
        found = functions.reducer.states(rows, names) if functions.reducer is not None else lists_of(rows, names)
        yield found[0], None, found[1]


def _tables(segments: Sequence[Segment], keys: Sequence[str]) -> list[pyarrow.Table]:
    return [_table(segment, keys) for segment in segments]


def _table(segment: Segment, keys: Sequence[str]) -> pyarrow.Table:
    if segment.form == "table":
        return unpack_table(segment.read())
    (found, counts, values), *_ = blocks([segment])
    if counts is not None:
        found = [key for key, count in zip(found, counts, strict=True) for key in repeat(key, count)]
    return table_of(found, values, keys)


def _tables_of_input(segments: Sequence[Segment], keys: Sequence[str], input: str, name: str) -> pyarrow.Table:
    tables = _tables([segment for segment in segments if segment.input == input], keys)
    if not tables:
        known = ", ".join(sorted({s.input for s in segments if s.input})) or "none"
        raise TypeError(f"{name} has a parameter {input!r}, but no input is called so (named: {known})")
    return concat_tables(tables)


def _parameters(function: Function) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind in kinds and p.default is inspect.Parameter.empty]
