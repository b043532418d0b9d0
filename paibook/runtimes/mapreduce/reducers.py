"""Declarative reducers: ``reduce = pai.Sum()`` says what is wanted, and combines where map runs without being told to.

Each works on the values of one key (``combine``, ``reduce``) and on whole tables (``partial``, ``final``), with equal
results. As in SQL, ``None`` is left out (only ``Count`` counts it), and a key with nothing else has the result ``None``
(an empty list for ``TopK`` and ``Distinct``). NaN makes a sum or mean NaN, is passed over by ``Min`` and ``Max``, comes
last in ``TopK``, and is one value to ``Distinct``.
"""

from __future__ import annotations

import heapq
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from paibook.errors import ProgramError
from paibook.runtimes.mapreduce.reduction import Column, Partial, Reducer

__all__ = ["Count", "CountDistinct", "Distinct", "Max", "Mean", "Min", "Partial", "Reducer", "Sum", "TopK"]


class Sum(Reducer):
    """The sum of the values; whole numbers never overflow."""

    def _lifted(self, values: Sequence[Any]) -> Any:
        return _sum(values)

    def _joined(self, states: list[Any]) -> Any:
        return _sum(states)

    def _partial(self, keys: Sequence[Column], values: Sequence[Column]) -> tuple[list[Column], list[Column]]:
        from paibook.runtimes.mapreduce.aggregates import grouped

        return grouped(keys, values, ["sum"] * len(values))

    def _final(self, keys: Sequence[Column], states: Sequence[Column]) -> tuple[list[Column], list[Column]]:
        from paibook.runtimes.mapreduce.aggregates import narrowed

        found, sums = self._partial(keys, states)
        return found, list(map(narrowed, sums))

    def _lifted_column(self, column: Column) -> list[Column] | None:
        from paibook.runtimes.mapreduce.aggregates import addable

        return [addable(column)]


class Count(Reducer):
    """How many values there are, ``None`` included."""

    _function = "count_all"

    def _lifted(self, values: Sequence[Any]) -> Any:
        return len(values)

    def _joined(self, states: list[Any]) -> Any:
        return sum(states)

    def _partial(self, keys: Sequence[Column], values: Sequence[Column]) -> tuple[list[Column], list[Column]]:
        from paibook.runtimes.mapreduce.aggregates import grouped

        return grouped(keys, values, [self._function] * len(values))

    def _final(self, keys: Sequence[Column], states: Sequence[Column]) -> tuple[list[Column], list[Column]]:
        return Sum()._partial(keys, states)

    def _lifted_column(self, column: Column) -> list[Column] | None:
        from paibook.runtimes.mapreduce.aggregates import ones

        return [ones(len(column))]


class Min(Reducer):
    """The least value."""

    _function = "min"

    def _lifted(self, values: Sequence[Any]) -> Any:
        return _extreme(min, values)

    def _joined(self, states: list[Any]) -> Any:
        return self._lifted(states)

    def _partial(self, keys: Sequence[Column], values: Sequence[Column]) -> tuple[list[Column], list[Column]]:
        from paibook.runtimes.mapreduce.aggregates import grouped

        return grouped(keys, values, [self._function] * len(values))

    def _final(self, keys: Sequence[Column], states: Sequence[Column]) -> tuple[list[Column], list[Column]]:
        return self._partial(keys, states)

    def _lifted_column(self, column: Column) -> list[Column] | None:
        return [column]


class Max(Min):
    """The greatest value."""

    _function = "max"

    def _lifted(self, values: Sequence[Any]) -> Any:
        return _extreme(max, values)


class Mean(Reducer):
    """The arithmetic mean: of numbers a float, of decimals a decimal, of durations a duration."""

    width = 2

    def _lifted(self, values: Sequence[Any]) -> Any:
        known = _known(values)
        return _sum(known), len(known)

    def _joined(self, states: list[Any]) -> Any:
        return _sum([total for total, _ in states]), sum(count for _, count in states)

    def _result(self, state: Any) -> Any:
        total, count = state
        return total / count if count else None

    def _partial(self, keys: Sequence[Column], values: Sequence[Column]) -> tuple[list[Column], list[Column]]:
        from paibook.runtimes.mapreduce.aggregates import grouped

        return grouped(keys, [value for value in values for _ in range(2)], ["sum", "count"] * len(values))

    def _final(self, keys: Sequence[Column], states: Sequence[Column]) -> tuple[list[Column], list[Column]]:
        from paibook.runtimes.mapreduce.aggregates import grouped, means

        found, made = grouped(keys, states, ["sum"] * len(states))
        return found, list(map(means, made[::2], made[1::2]))

    def _lifted_column(self, column: Column) -> list[Column] | None:
        from paibook.runtimes.mapreduce.aggregates import addable

        return [addable(column), column.is_valid().cast("int64")]

    def _labels(self, name: str) -> list[str]:
        return [name, f"{name} (count)"]


class _Lists(Reducer):
    """Keeps some of the values, as a list."""

    adds = False

    def _joined(self, states: list[Any]) -> Any:
        return self._lifted([value for state in states for value in state])

    def _partial(self, keys: Sequence[Column], values: Sequence[Column]) -> tuple[list[Column], list[Column]]:
        return self._kept(keys, values, 0)

    def _final(self, keys: Sequence[Column], states: Sequence[Column]) -> tuple[list[Column], list[Column]]:
        return self._kept(keys, states, 1)

    def _kept(self, keys: Sequence[Column], values: Sequence[Column], depth: int) -> Any:
        from paibook.runtimes.mapreduce.aggregates import grouped_rows, members

        found, rows = grouped_rows(keys)
        return found, [self._of_members(*members(rows, some, depth), len(rows)) for some in values]

    @abstractmethod
    def _of_members(self, parents: Any, values: Any, groups: int) -> Column:
        """The list of each group, from its members."""


class TopK(_Lists):
    """The ``k`` greatest values, the greatest first (``largest=False``: the least).

    Raises:
        ProgramError: ``k`` is not a whole number, 1 or more.
    """

    def __init__(self, k: int, largest: bool = True) -> None:
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ProgramError(f"pai.TopK(k) takes a whole number, 1 or more; got {k!r}")
        self.k = k
        self.largest = largest

    def _lifted(self, values: Sequence[Any]) -> Any:
        numbers = [value for value in values if value is not None and value == value]
        made = (heapq.nlargest if self.largest else heapq.nsmallest)(self.k, numbers)
        if len(made) < self.k and len(numbers) < len(values):
            made += [value for value in values if value is not None and value != value][: self.k - len(made)]
        return made

    def _of_members(self, parents: Any, values: Any, groups: int) -> Column:
        from paibook.runtimes.mapreduce.aggregates import greatest

        return greatest(parents, values, groups, self.k, self.largest)

    def __repr__(self) -> str:
        return f"pai.TopK({self.k}{'' if self.largest else ', largest=False'})"


class Distinct(_Lists):
    """The values without repetitions, in order of first appearance; they must be hashable."""

    def _lifted(self, values: Sequence[Any]) -> Any:
        made = dict.fromkeys(_known(values))
        strange = [value for value in made if value != value]
        for value in strange[1:]:  # NaN equals nothing, so every copy of it is a key of its own
            del made[value]
        return list(made)

    def _of_members(self, parents: Any, values: Any, groups: int) -> Column:
        from paibook.runtimes.mapreduce.aggregates import distinct

        return distinct(parents, values, groups)


class CountDistinct(Distinct):
    """How many different values there are."""

    def _result(self, state: Any) -> Any:
        return len(state)

    def _final(self, keys: Sequence[Column], states: Sequence[Column]) -> tuple[list[Column], list[Column]]:
        import pyarrow.compute as compute

        found, lists = super()._final(keys, states)
        return found, [compute.list_value_length(some).cast("int64") for some in lists]


def _known(values: Sequence[Any]) -> Sequence[Any]:
    return [value for value in values if value is not None] if type(None) in set(map(type, values)) else values


def _sum(values: Sequence[Any]) -> Any:
    if not values:
        return None
    try:
        return sum(values)
    except TypeError:
        known = _known(values)
        if not known:
            return None
        if isinstance(known[0], (str, bytes, list, tuple)):
            raise TypeError(f"pai.Sum() and pai.Mean() add numbers; got {type(known[0]).__name__} values") from None
        return sum(known[1:], known[0])  # durations and whatever else has a + but no zero


def _extreme(function: Any, values: Sequence[Any]) -> Any:
    try:
        made = function(values)
        if isinstance(made, float) and made != made:  # a NaN that came first beats everything
            made = function([value for value in values if value is not None and value == value], default=made)
        return made
    except TypeError:
        return function(_ordered(values), default=None) if None in values else function(values)


def _ordered(values: Sequence[Any]) -> list[Any]:
    known = [value for value in values if value is not None]
    return [value for value in known if value == value] or known
