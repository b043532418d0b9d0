"""Records on their way out of a task: to the notebook, or into the parts of one or several outputs."""

from __future__ import annotations

from typing import Any

from paibook.data.parts import ROWS
from paibook.errors import UserCodeError
from paibook.runtimes.mapreduce.job import portable
from paibook.runtimes.mapreduce.report import Report
from paibook.runtimes.mapreduce.steps import MAIN, Rows, WriteTo
from paibook.runtimes.mapreduce.task import Output


class RecordSink:
    """Takes the records of a task.

    Args:
        sink: The outputs.
        module: Where the program lives, for records that are instances of its classes.
        where: Names the task in errors.
        report: Kept up to date.
    """

    def __init__(self, sink: WriteTo, module: str, where: str, report: Report) -> None:
        self._sink = sink
        self._module = module
        self._where = where
        self._report = report
        self._records: dict[str, list[Any]] = {name: [] for name in sink.writers}
        self._chunks: dict[str, list[Any]] = {name: [] for name in sink.writers}
        self._rows: dict[str, int] = dict.fromkeys(sink.writers, 0)
        self._keys: list[Any] = []
        self._ends: list[int] = []

    def add(self, made: list[Any], key: Any = None) -> None:
        """Take the records of a key.

        Raises:
            UserCodeError: A record for an output that the line does not name.
            DataError: They cannot be written.
        """
        main = self._records[MAIN]
        for record in made:
            if type(record) is Output:
                self._named(record)
            else:
                main.append(record)
        if self._sink.writers[MAIN] is None:
            if self._sink.with_keys:
                self._keys.append(key)
                self._ends.append(len(main))
        elif len(main) >= ROWS:
            self._gather(MAIN)

    def close(self, comparable: bool) -> dict[str, Any]:
        """For each output its ``Rows`` or its part; None where a part has no records.

        Args:
            comparable: Whether the keys came in their order.
        """
        made: dict[str, Any] = {}
        for name, writer in self._sink.writers.items():
            count = self._rows[name] + len(self._records[name])
            self._report.records_out += count
            if writer is None:
                keys = (self._keys, self._ends) if name == MAIN and comparable and self._sink.with_keys else None
                made[name] = self._packed(self._records[name], keys)
                continue
            self._gather(name)
            part = writer.write(self._chunks[name], count)
            made[name] = part
        return made

    def _named(self, output: Output) -> None:
        if output.name not in self._records or output.name == MAIN:
            known = ", ".join(repr(name) for name in self._records if name) or "none"
            message = (
                f"a record was yielded for the output {output.name!r}, which the line does not name "
                f"(named: {known}); add -o MAIN {output.name}=PATH"
            )
            raise UserCodeError(self._where, "ProgramError", message, f"{self._where}: {message}\n")
        records = self._records[output.name]
        records.append(output.record)
        if self._sink.writers[output.name] is not None and len(records) >= ROWS:
            self._gather(output.name)

    def _gather(self, name: str) -> None:
        records, self._records[name] = self._records[name], []
        writer = self._sink.writers[name]
        if records and writer is not None:
            self._rows[name] += len(records)
            self._chunks[name].append(writer.gather(records))

    def _packed(self, records: list[Any], keys: Any) -> Rows:
        try:
            return Rows(portable(records, self._module), None if keys is None else portable(keys, self._module))
        except Exception as error:  # pickling runs the records' own code, which may raise anything
            message = f"what the cell yielded cannot be sent to the notebook: {type(error).__name__}: {error}"
            raise UserCodeError(self._where, "ProgramError", message, f"{self._where}: {message}\n") from error
