"""The collector: what a task's functions yield for the next shuffle, combined, cut and spilled."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from paibook.errors import DataError, UserCodeError
from paibook.runtimes.mapreduce.job import StageFunctions
from paibook.runtimes.mapreduce.mistakes import PAIRS, check_pair, checked, explained
from paibook.runtimes.mapreduce.pair_columns import AGAIN, AT_ONCE, PairColumns
from paibook.runtimes.mapreduce.report import Report
from paibook.runtimes.mapreduce.shuffle import Buckets, ShuffleWriter, bucket_numbers
from paibook.runtimes.mapreduce.unsendable import unsendable

WORTHWHILE = 0.8  # of the values at most may have a key of their own, so that combining takes less than it saves
HOT = 1000  # values of one key that are combined whatever the other keys are like
PENDING = 500_000  # values after which combining them is worth while, whatever memory there is
FIRST = 1  # pairs before the first look at what they take
PORTION = 4  # the part of the limits that may come between two looks
COPIES = 2  # of what is held, while it is put in order and packed


class Collector:
    """Collects pairs for one stage's shuffle.

    Args:
        functions: The stage's.
        writer: Where the pairs go.
        budget: Bytes that may be held.
        where: Names the task in errors.
        report: Kept up to date.

    Attributes:
        pending: Where pairs of hashable keys may be appended one by one; ``added`` is to follow.
    """

    def __init__(
        self, functions: StageFunctions, writer: ShuffleWriter, budget: int, where: str, report: Report
    ) -> None:
        self._combiner, self._partition = functions.pair_combiner, functions.partition
        self._writer = writer
        self._budget = budget
        self._where = where
        self._report = report
        self.pending: list[tuple[Any, Any]] = []
        self._columns = PairColumns()
        self._since, self._next = 0, FIRST  # pairs since the last look, and from there to the next one
        self._size = 0  # bytes at the last look
        # Pairs that stay objects after some of another kind came; what is combined starts anew anyway.
        self._patience = AGAIN if self._combiner is None else PENDING

    @property
    def room(self) -> int:
        """Pairs that may be added at once, at least one: few while nothing is known of their size."""
        return max(1, min(AT_ONCE, self._next - self._since))

    def add_pairs(self, pairs: list[Any]) -> None:
        """Take pairs, as many as there is ``room``; combine and spill where what is held needs it.

        Raises:
            TypeError, ValueError: One is not a pair, or its key cannot be hashed.
            UserCodeError, DataError: As ``close``.
        """
        if pairs and not self._columns.add(pairs):
            self._combine()
            self._add(pairs)
        self._since += len(pairs)
        if self._since >= self._next:
            self._look()
            self._relieve()

    def added(self) -> None:
        """Note that pairs were appended to ``pending``.

        Raises:
            UserCodeError, DataError: As ``close``.
        """
        if len(self.pending) >= self.room:
            self._take_pending()

    def close(self) -> Buckets:
        """Hand on the rest; everything, cut into buckets.

        Raises:
            UserCodeError: ``combine`` or ``partition`` raised, or a key or value cannot be sent.
            DataError: The disk is full.
        """
        self._take_pending()
        self._combine()
        self._write()
        buckets = self._writer.close()
        self._report.bytes_out += self._writer.bytes
        self._report.records_out += sum(segment.values for bucket in buckets for segment in bucket)
        return buckets

    def _take_pending(self) -> None:
        pairs = self.pending.copy()
        self.pending.clear()
        self.add_pairs(pairs)

    def _add(self, pairs: list[Any]) -> None:
        """Take pairs, writing what is held where these have values of another kind."""
        if not pairs or self._columns.add(pairs):
            return
        had_objects = self._columns.has_objects
        self._spill()
        self._size, self._since, self._next = 0, 0, FIRST  # objects take more than columns
        if had_objects and self._columns.add(pairs):
            return
        self._columns.use_objects(self._patience)
        self._columns.add(pairs)
        self._patience *= 2  # where kinds go on alternating, each change would be a write

    def _look(self) -> None:
        """Measure what is held, and see from its growth when to look again."""
        size = self._size
        self._measure()
        grown = max(1, self._size - size) / self._since
        fitting = int(min(PENDING // PORTION, self._budget // PORTION / grown))
        # No more than twice as many: the next pairs may be larger than those before them.
        self._next = max(1, min(2 * self._since, fitting))
        self._since = 0

    def _measure(self) -> None:
        self._size = COPIES * self._columns.nbytes

    def _relieve(self) -> None:
        held = self._columns.rows
        if held < PENDING and self._size < self._budget:
            return
        if self._combine():
            self._measure()
            if self._size < self._budget // 2 and 2 * self._columns.rows <= max(held, PENDING):
                return
        elif self._size < self._budget:
            return
        self._spill()
        self._measure()

    def _spill(self) -> None:
        if not self._columns.rows:
            return
        before = self._writer.bytes
        self._write()
        self._report.spills += 1
        self._report.spilled_bytes += self._writer.bytes - before

    def _combine(self) -> bool:
        """Combine what is held; False where nothing is to be gained by it."""
        columns = self._columns
        if self._combiner is None or (columns.keys > WORTHWHILE * columns.rows and columns.heaviest() < HOT):
            return False
        self._columns = PairColumns()
        pairs: list[tuple[Any, Any]] = []
        for made in self._combined(columns):
            pairs += made
            if len(pairs) >= AT_ONCE:
                self._add(pairs)
                pairs = []
        self._add(pairs)
        return True

    def _combined(self, columns: PairColumns) -> Iterator[list[tuple[Any, Any]]]:
        """What ``combine`` makes of each key; a lone value has nothing to be combined with and stays as it is."""
        assert self._combiner is not None
        combine = checked(self._combiner, "combine", PAIRS)
        for key, values in columns.groups():
            if len(values) == 1:
                yield [(key, values[0])]
                continue
            pair: Any = (None, None)
            made = []
            try:
                for pair in combine(key, values):
                    if type(pair) is not tuple:
                        check_pair(pair, "combine")
                    new_key, value = pair
                    hash(new_key)
                    made.append((new_key, value))
            except (Exception, SystemExit) as error:
                raise explained(error, f"{self._where}, key {key!r:.80}", "combine", pair) from error
            yield made

    def _write(self) -> None:
        try:
            self._columns.write(self._writer, self._numbers)
        except (DataError, UserCodeError):
            raise
        except Exception as error:  # pickling runs the values' own code, which may raise anything
            raise unsendable(self._where, error) from error

    def _numbers(self, keys: Collection[Any]) -> Any:
        try:
            return bucket_numbers(keys, len(self._writer.buckets), self._partition)
        except Exception as error:
            if self._partition is not None:
                raise explained(error, self._where, "partition") from error
            raise unsendable(self._where, error) from error
