"""Reductions: what every declarative reducer does, key by key and on whole tables.

A value that was combined already travels as a ``Partial``; a raw value and a partial one may stand in the same list.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pyarrow

Column = Any  # pyarrow.ChunkedArray or pyarrow.Array
ENOUGH = 4096  # rows of a bucket that tell whether combining pays
HOT = 2  # times its share of the rows that a bucket has which is combined whatever the others tell
WORTHWHILE = 1 / 3  # of the rows at most left by combining, so that it takes less time than it saves the shuffle


class Partial:
    """The state of some values of a key that were combined."""

    __slots__ = ("state",)

    def __init__(self, state: Any) -> None:
        self.state = state

    def __repr__(self) -> str:
        return f"Partial({self.state!r:.60})"


class Reducer(ABC):
    """Reduces the values of a key to one result; records are ``(key, result)`` pairs.

    Attributes:
        width: Columns of state for each column of values.
        adds: Whether the state of any number of values is of one size.
    """

    width = 1
    adds = True

    def combine(self, key: Any, values: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        """Where map ran: values and partial states become one partial state."""
        yield key, Partial(self._state(values))

    def reduce(self, key: Any, values: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        """The record of a key."""
        yield key, self._result(self._state(values))

    def partial(self, table: pyarrow.Table, keys: Sequence[str]) -> pyarrow.Table:
        """Combine the rows of a table: each key once, with the state of each other column.

        Args:
            table: Key columns, and columns of values, each of which is reduced on its own.
            keys: Names of the key columns, at least one.

        Raises:
            WrongYield: No other column, or one of a type that this reducer does not take.
        """
        names = _others(table, keys)
        self.check_values(names)
        made_keys, states = self._partial(table.select(list(keys)).columns, table.select(names).columns)
        return _named(keys, made_keys, [label for name in names for label in self._labels(name)], states)

    def final(self, table: pyarrow.Table, keys: Sequence[str]) -> pyarrow.Table:
        """Reduce tables that ``partial`` made, below each other: each key once, with the result of each column.

        Args:
            table: Concatenated results of ``partial``.
            keys: Names of the key columns.
        """
        names = _others(table, keys)
        made_keys, results = self._final(table.select(list(keys)).columns, table.select(names).columns)
        return _named(keys, made_keys, names[:: self.width], results)

    def lifted(self, table: pyarrow.Table, keys: Sequence[str]) -> pyarrow.Table | None:
        """What ``partial`` would make if every row were alone with its key; None where that is no gain.

        Faster than ``partial``, where few rows share a key; ``final`` takes both.
        """
        names = _others(table, keys)
        self.check_values(names)
        states: list[Column] = []
        for column in table.select(names).columns:
            some = self._lifted_column(column)
            if some is None:
                return None
            states += some
        labels = [label for name in names for label in self._labels(name)]
        return _named(keys, table.select(list(keys)).columns, labels, states)

    def shuffled(self, table: pyarrow.Table, keys: Sequence[str], buckets: int) -> list[pyarrow.Table | None]:
        """Cut a table into buckets and combine each, or none where few rows share a key; for ``final``.

        Args:
            table, keys: As of ``partial``.
            buckets: How many, at least 1.
        """
        from paibook.runtimes.mapreduce.dense_groups import is_dense
        from paibook.runtimes.mapreduce.table_shuffle import partition_table

        if self.adds and len(keys) == 1 and is_dense(table.column(keys[0])):
            return partition_table(self.partial(table, keys), keys, buckets)  # a look at each row, and never more rows
        made: list[pyarrow.Table | None] = []
        combines = True
        for some in partition_table(table, keys, buckets):
            if some is None:
                made.append(None)
                continue
            # Keys are spread over the buckets at random: one that had enough rows tells of all, but for a bucket with a
            # hot key, which has more rows than its share.
            hot = some.num_rows > HOT * table.num_rows / buckets
            lifted = None if combines or hot else self.lifted(some, keys)
            state = self.partial(some, keys) if lifted is None else lifted
            made.append(state)
            if combines and not hot and some.num_rows >= ENOUGH:
                combines = state.num_rows <= WORTHWHILE * some.num_rows
        return made

    def states(self, table: pyarrow.Table, keys: Sequence[str]) -> tuple[list[Any], list[Any]]:
        """What ``partial`` made of one column of values, as keys and values for ``combine`` and ``reduce``."""
        from paibook.runtimes.mapreduce.pairs import lists_of

        found, values = lists_of(table, keys)
        return found, [Partial(value) for value in values]

    def check_values(self, names: Sequence[str]) -> None:
        """Refuse a table that has nothing to reduce.

        Raises:
            WrongYield: Saying so.
        """
        if not names:
            from paibook.runtimes.mapreduce.mistakes import WrongYield

            raise WrongYield(f"{self!r} reduces the columns beside the key's, and the table has none; add one")

    def _state(self, values: Sequence[Any]) -> Any:
        if Partial not in set(map(type, values)):
            return self._lifted(values)
        states: list[Any] = []
        raw: list[Any] = []
        for value in values:  # in order of arrival, which Distinct shows
            if type(value) is not Partial:
                raw.append(value)
                continue
            if raw:
                states.append(self._lifted(raw))
                raw = []
            states.append(value.state)
        if raw:
            states.append(self._lifted(raw))
        return states[0] if len(states) == 1 else self._joined(states)

    @abstractmethod
    def _lifted(self, values: Sequence[Any]) -> Any:
        """The state of raw values, at least one."""

    @abstractmethod
    def _joined(self, states: list[Any]) -> Any:
        """The state of several states together."""

    def _result(self, state: Any) -> Any:
        return state

    @abstractmethod
    def _partial(self, keys: Sequence[Column], values: Sequence[Column]) -> tuple[list[Column], list[Column]]:
        """Keys once each, and ``width`` columns of state for each of values."""

    @abstractmethod
    def _final(self, keys: Sequence[Column], states: Sequence[Column]) -> tuple[list[Column], list[Column]]:
        """Keys once each, and one column of results for every ``width`` of states."""

    def _lifted_column(self, column: Column) -> list[Column] | None:
        """The ``width`` columns of states of single values."""
        return None

    def _labels(self, name: str) -> list[str]:
        return [name]

    def __repr__(self) -> str:
        return f"pai.{type(self).__name__}()"


def _others(table: pyarrow.Table, keys: Sequence[str]) -> list[str]:
    return [name for name in table.column_names if name not in keys]


def _named(
    keys: Sequence[str], key_columns: Iterable[Column], names: Sequence[str], columns: Sequence[Column]
) -> pyarrow.Table:
    import pyarrow

    return pyarrow.table([*key_columns, *columns], names=[*keys, *names])
