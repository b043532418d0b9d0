"""Records on their way out of a task: to the notebook, or into the parts of one or several outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow

from paibook.data.sinks import PartSink
from paibook.runtimes.mapreduce.job import portable
from paibook.runtimes.mapreduce.mistakes import said
from paibook.runtimes.mapreduce.report import Report
from paibook.runtimes.mapreduce.steps import MAIN, Rows, WriteTo
from paibook.runtimes.mapreduce.table_shuffle import concat_tables, pack_table
from paibook.runtimes.mapreduce.task import Output

ROWS = 50_000  # records turned into columns at once


class RecordSink:
    """Takes the records of a task.

    Args:
        sink: The outputs.
        module: Where the program lives, for records that are instances of its classes.
        where: Names the task in errors.
        report: Kept up to date.
    """

    def __init__(self, sink: WriteTo, module: str, where: str, report: Report) -> None:
        self._with_keys = sink.with_keys and sink.writers[MAIN] is None
        self._as_table = sink.as_table and sink.writers[MAIN] is None
        self._tables: list[pyarrow.Table] = []
        self._module, self._where, self._report = module, where, report
        self._records: dict[str, list[Any]] = {name: [] for name in sink.writers}
        self._sinks: dict[str, PartSink] = {name: w.open() for name, w in sink.writers.items() if w is not None}
        self._keys: list[Any] = []
        self._ends: list[int] = []

    def add(self, made: list[Any], key: Any = None) -> None:
        """Take the records of a key.

        Raises:
            UserCodeError: A record for an output that the line does not name.
            DataError: They cannot be written.
        """
        main = self._records[MAIN]
        if any(type(record) is Output for record in made):
            for record in made:
                if type(record) is Output:
                    self._named(record)
                else:
                    main.append(record)
        else:
            main += made
        if self._with_keys:
            self._keys.append(key)
            self._ends.append(len(main))
        elif len(main) >= ROWS:
            self._flush(MAIN)

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
        self._with_keys = False
        if self._as_table:
            self._report.records_out += rows.num_rows
            self._tables.append(rows)
        elif MAIN in self._sinks:
            self._report.records_out += rows.num_rows
            self._sinks[MAIN].add_table(rows)
        else:
            self._records[MAIN] += rows.to_pylist()

    def close(self, comparable: bool) -> dict[str, Any]:
        """For each output its ``Rows`` or its parts.

        Args:
            comparable: Whether the keys came in their order.
        """
        made: dict[str, Any] = {}
        for name in self._records:
            if name in self._sinks:
                self._flush(name)
                made[name] = self._sinks[name].close()
                continue
            if name == MAIN and self._as_table:
                made[name] = Rows(pack_table(concat_tables(self._tables)).to_pybytes(), None)
                continue
            self._report.records_out += len(self._records[name])
            keys = (self._keys, self._ends) if name == MAIN and comparable and self._with_keys else None
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
        if len(records) >= ROWS:
            self._flush(output.name)

    def _flush(self, name: str) -> None:
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
