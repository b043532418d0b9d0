"""The collector of tables: what batch functions return for the next shuffle, combined, cut by key and packed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pyarrow

from paibook.errors import DataError
from paibook.runtimes.mapreduce.batches import call
from paibook.runtimes.mapreduce.forms import form_of
from paibook.runtimes.mapreduce.job import StageFunctions
from paibook.runtimes.mapreduce.mistakes import WrongYield, explained
from paibook.runtimes.mapreduce.report import Report
from paibook.runtimes.mapreduce.shuffle import Buckets, ShuffleWriter
from paibook.runtimes.mapreduce.table_shuffle import ROUTE, concat_tables, key_columns, pack_table, partition_table

CHUNK = 64 << 20  # bytes of rows combined and cut at once


class TableCollector:
    """Takes the tables of a task for one stage's shuffle.

    Args:
        functions: The stage's.
        keys: Those of ``--key``.
        writer: Where the rows go.
        budget: Bytes that may be held.
        where: Names the task in errors.
        report: Kept up to date.
        input: Whose rows they are.
        tagged: Whether each bucket gets this input's columns even where it gets no row, since the reducer takes a
            table of each input.
        gathered: Relations whose rows all go to the first bucket.
    """

    def __init__(
        self,
        functions: StageFunctions,
        keys: Sequence[str],
        writer: ShuffleWriter,
        budget: int,
        where: str,
        report: Report,
        input: str,
        tagged: bool,
        gathered: Collection[str] = (),
    ) -> None:
        self._functions, self._keys, self._writer = functions, keys, writer
        self._where, self._report, self._input, self._tagged = where, report, input, tagged
        self._gathered = gathered
        self._chunk = min(CHUNK, max(1, budget // 4))
        self._held: dict[str, list[pyarrow.Table]] = {}
        self._bytes = 0
        self._schema: pyarrow.Schema | None = None

    def add(self, made: Mapping[str, pyarrow.Table]) -> None:
        """Take some rows of each relation; those of ``""`` belong to the input."""
        for relation, table in made.items():
            if not relation:
                self._schema = table.schema
            if table.num_rows:
                self._held.setdefault(relation, []).append(table)
                self._bytes += table.nbytes
        if self._bytes >= self._chunk:
            self._flush()

    def close(self) -> Buckets:
        """Hand on the rest; everything, cut into buckets.

        Raises:
            UserCodeError: ``combine`` raised, or the tables have no such key.
            DataError: The disk is full.
        """
        self._flush()
        if self._tagged and self._schema is not None:
            self._add_columns(self._schema.empty_table())
        buckets = self._writer.close()
        self._report.bytes_out += self._writer.bytes
        self._report.records_out += sum(segment.values for bucket in buckets for segment in bucket)
        return buckets

    def _flush(self) -> None:
        held, self._held, self._bytes = self._held, {}, 0
        for relation, tables in held.items():
            try:
                shares = self._shares(relation, concat_tables(tables))
            except (DataError, WrongYield, pyarrow.ArrowException) as error:
                raise explained(error, self._where, "map") from error
            for bucket, share in enumerate(shares):
                if share is not None:
                    self._pack(bucket, share, relation or self._input)

    def _shares(self, relation: str, rows: pyarrow.Table) -> Sequence[pyarrow.Table | None]:
        """The rows of each bucket."""
        if relation in self._gathered:
            return [rows]
        buckets = len(self._writer.buckets)
        if relation:
            return partition_table(rows, key_columns(rows, [ROUTE], relation), buckets)
        keys = key_columns(rows, self._keys, "map")
        if self._functions.reducer is not None:
            return self._functions.reducer.shuffled(rows, keys, buckets)
        return partition_table(self._combined(rows), keys, buckets)

    def _combined(self, rows: pyarrow.Table) -> pyarrow.Table:
        combine = self._functions.combine
        if combine is None or form_of(combine) == "records":
            return rows
        try:
            return call(combine, form_of(combine), rows, "combine")
        except (Exception, SystemExit) as error:
            raise explained(error, self._where, "combine") from error

    def _add_columns(self, empty: pyarrow.Table) -> None:
        for bucket, segments in enumerate(self._writer.buckets):
            if not segments:
                self._pack(bucket, empty, self._input)

    def _pack(self, bucket: int, share: pyarrow.Table, relation: str) -> None:
        self._writer.add(bucket, pack_table(share), share.num_rows, share.nbytes, "table", relation)
