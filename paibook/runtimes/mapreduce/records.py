"""Records on their way out of a task: to the notebook, or into the parts of one or several outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pyarrow

from paibook.data.sinks import PartSink
from paibook.runtimes.mapreduce.aggregates import with_decimals
from paibook.runtimes.mapreduce.job import portable
from paibook.runtimes.mapreduce.memory import size_of_items
from paibook.runtimes.mapreduce.mistakes import said
from paibook.runtimes.mapreduce.pairs import dicts_of
from paibook.runtimes.mapreduce.report import Report
from paibook.runtimes.mapreduce.steps import MAIN, Rows, WriteTo
from paibook.runtimes.mapreduce.table_shuffle import concat_tables, pack_table
from paibook.runtimes.mapreduce.task import Output

ROWS = 10_000  # records turned into columns at once, while they are in the processor's cache
SAMPLES = 20  # records measured at a look
FIRST = 1  # records before the first look at their size
PORTION = 8  # the part of the budget that records take before they are turned into columns, or columns into a file


class RecordSink:
    """Takes the records of a task.

    Args:
        sink: The outputs.
        module: Where the program lives, for records that are instances of its classes.
        where: Names the task in errors.
        report: Kept up to date.
        budget: Bytes that may be held, of what goes to files.

    Attributes:
        pending: Where records may be appended without a call for each key; ``added`` is to follow.
        with_keys: Whether it keeps which records came of which key.
    """

    def __init__(self, sink: WriteTo, module: str, where: str, report: Report, budget: int) -> None:
        self.with_keys = sink.with_keys and sink.writers[MAIN] is None
        self._as_table = sink.as_table and sink.writers[MAIN] is None
        self._tables: list[pyarrow.Table] = []
        self._module, self._where, self._report = module, where, report
        self._records: dict[str, list[Any]] = {name: [] for name in sink.writers}
        self._portion = max(1, budget // PORTION)
        self._sinks: dict[str, PartSink] = {
            name: replace(writer, buffer=min(writer.buffer, self._portion)).open()
            for name, writer in sink.writers.items()
            if writer is not None
        }
        self._looks = {name: FIRST if name in self._sinks else ROWS for name in sink.writers}
        self._keys: list[Any] = []
        self._ends: list[int] = []
        self.pending: list[Any] = []

    @property
    def room(self) -> int:
        """Records of input that may come before ``add``, at least one."""
        return min(ROWS, max(1, self._looks[MAIN] - len(self.pending)))

    def add(self, made: Iterable[Any], key: Any = None) -> None:
        """Take the records of a key.

        Raises:
            UserCodeError: A record for an output that the line does not name.
            DataError: They cannot be written.
        """
        self.pending.extend(made)
        self.added(key)

    def added(self, key: Any = None) -> None:
        """Note that the records of a key, or of none, were appended to ``pending``.

        Raises:
            UserCodeError, DataError: As ``add``.
        """
        if self.with_keys:
            self._sort_out()
            self._keys.append(key)
            self._ends.append(len(self._records[MAIN]))
        elif len(self.pending) >= self._looks[MAIN]:
            self._look(MAIN)

    def _sort_out(self) -> None:
        """Bring what is pending to the outputs it is for."""
        pending, main = self.pending, self._records[MAIN]
        if Output in set(map(type, pending)):
            for record in pending:
                if type(record) is Output:
                    self._named(record)
                else:
                    main.append(record)
        else:
            main += pending
        pending.clear()

    def add_tables(self, made: Mapping[str, pyarrow.Table]) -> None:
        """Take what a function of the cell made of a table.

        Raises:
            UserCodeError: It names what it made, and nothing follows that would take it by its name.
        """
        for name, rows in made.items():
            if name:
                message = f"a table was made for {name!r}, but no reduce follows; return the table alone"
                raise said(self._where, message)
            self._add_table(rows)

    def _add_table(self, rows: pyarrow.Table) -> None:
        """Take rows, as dicts where they go to the notebook."""
        self.with_keys = False
        if self._as_table:
            self._report.records_out += rows.num_rows
            self._tables.append(rows)
        elif MAIN in self._sinks:
            self._report.records_out += rows.num_rows
            self._sinks[MAIN].add_table(with_decimals(rows))
        else:
            self._records[MAIN] += dicts_of(rows)

    def close(self, comparable: bool) -> dict[str, Any]:
        """For each output its ``Rows`` or its parts.

        Args:
            comparable: Whether the keys came in their order.
        """
        made: dict[str, Any] = {}
        self._sort_out()
        for name in self._records:
            if name in self._sinks:
                self._flush(name)
                made[name] = self._sinks[name].close()
                continue
            if name == MAIN and self._as_table:
                made[name] = Rows(pack_table(concat_tables(self._tables)).to_pybytes(), None)
                continue
            self._report.records_out += len(self._records[name])
            keys = (self._keys, self._ends) if name == MAIN and comparable and self.with_keys else None
            made[name] = self._packed(self._records[name], keys)
        return made

    def abort(self) -> None:
        """Remove what was written."""
        for sink in self._sinks.values():
            sink.abort()

    def _named(self, output: Output) -> None:
        if output.name not in self._records or output.name == MAIN:
            known = ", ".join(repr(name) for name in self._records if name) or "none"
            message = (
                f"a record was yielded for the output {output.name!r}, which the line does not name "
                f"(named: {known}); add -o MAIN {output.name}=PATH"
            )
            raise said(self._where, message)
        records = self._records[output.name]
        records.append(output.record)
        if len(records) >= self._looks[output.name]:
            self._look(output.name)

    def _look(self, name: str) -> None:
        """Write the records where they are many or large; else look again when they are twice as many."""
        if name not in self._sinks:
            self._flush(name)
            return
        records = self.pending if name == MAIN else self._records[name]
        count, size = len(records), size_of_items(records, SAMPLES)
        fitting = max(1, min(ROWS, self._portion * count // max(1, size)))
        if count >= fitting:
            self._flush(name)
            self._looks[name] = fitting
        else:
            self._looks[name] = min(2 * count, fitting)

    def _flush(self, name: str) -> None:
        if name == MAIN:
            self._sort_out()
        if name in self._sinks:
            records = self._records[name]
            self._report.records_out += len(records)
            self._sinks[name].add(records)
            records.clear()

    def _packed(self, records: list[Any], keys: Any) -> Rows:
        try:
            return Rows(portable(records, self._module), None if keys is None else portable(keys, self._module))
        except Exception as error:  # pickling runs the records' own code, which may raise anything
            message = f"what the cell yielded cannot be sent to the notebook: {type(error).__name__}: {error}"
            raise said(self._where, message) from error
