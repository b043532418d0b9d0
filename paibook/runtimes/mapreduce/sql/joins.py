"""Joins: a chain of equi-joins, each of whose sides is sent by the join's keys; equal keys meet, and so join.

A small side is given to every task instead, and the other one stays where it is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from sqlglot import exp

from paibook.runtimes.mapreduce.sql.expressions import (
    Name,
    Tree,
    aliases_in,
    comparable,
    in_columns,
    names_in,
    text_of,
)
from paibook.runtimes.mapreduce.sql.fragments import quoted
from paibook.runtimes.mapreduce.sql.relations import Indivisible, Key, Layout, Relation, columns, unique

_RIGHT_STAYS = ("RIGHT", "FULL")  # kinds whose right side's rows all survive
_LEFT_STAYS = ("LEFT", "FULL")
_LEFT_ONLY = ("SEMI", "ANTI")  # kinds that show the left side's columns alone


@dataclass
class Source:
    """A table of FROM.

    Attributes:
        alias: What the query calls it.
        rows: What it holds.
        names: The columns of ``rows``, by the query's.
    """

    alias: str
    rows: Relation
    names: dict[Name, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Join:
    """One join of a chain.

    Attributes:
        source: Its right side.
        kind: ``INNER``, ``LEFT``, ``RIGHT``, ``FULL``, ``SEMI`` or ``ANTI``.
        on: What its condition demands.
    """

    source: Source
    kind: str
    on: tuple[Tree, ...]


class Joining:
    """Joins relations.

    Args:
        layout: Where.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def joined(
        self, first: Source, joins: Sequence[Join], where: Sequence[Tree], needed: set[Name]
    ) -> tuple[Source, list[Tree]]:
        """All tables of FROM as one.

        Args:
            first, joins: In the query's order.
            where: What WHERE demands; what speaks of one table is done before the joins.
            needed: Columns that the rest of the query reads.

        Returns:
            The rows, and what of WHERE is left to do.

        Raises:
            Indivisible: A join without an equality between its sides, none of which is small.
        """
        where = list(where)
        current, waiting = first, list(joins)
        inner = all(join.kind in ("INNER", *_LEFT_ONLY) for join in joins)
        if inner:
            where += [condition for join in joins if join.kind == "INNER" for condition in join.on]
            # What a semi join leaves does not depend on when it is done.
            waiting = [Join(join.source, join.kind, ()) for join in joins if join.kind == "INNER"]
            current, waiting = self._large_first(first, waiting, where)
            waiting += [join for join in joins if join.kind in _LEFT_ONLY]
        nullable = _nullable(first, joins)
        for source in [first, *(join.source for join in joins if join.kind not in _LEFT_ONLY)]:
            if source.alias not in nullable:
                self._filter(source, _taken(where, {source.alias}))
        seen = {current.alias}
        while waiting:
            reorder = inner and waiting[0].kind == "INNER"
            join = self._next(waiting, where, seen) if reorder else waiting[0]
            waiting.remove(join)
            on = list(join.on)
            if reorder:
                on = _taken(where, seen | {join.source.alias})
            rest = [*where, *(condition for later in waiting for condition in later.on)]
            current = self._join(current, seen, join, on, needed | names_in(rest))
            seen.add(join.source.alias)
        return current, where

    def _large_first(self, first: Source, joins: list[Join], where: Sequence[Tree]) -> tuple[Source, list[Join]]:
        """Inner joins that begin with a large table, if there is one: small ones can then be given to its tasks."""
        large = next((join for join in joins if self._layout.is_large(join.source.rows)), None)
        # Where a condition needs three tables, not every order has a key for each join.
        if large is None or self._layout.is_large(first.rows) or any(len(aliases_in(c)) > 2 for c in where):
            return first, joins
        return large.source, [Join(first, "INNER", ()), *(join for join in joins if join is not large)]

    def _next(self, waiting: Sequence[Join], where: Sequence[Tree], seen: Collection[str]) -> Join:
        """The first of inner joins that has a key, if any has; the order of inner joins means nothing."""
        inner = [join for join in waiting if join.kind == "INNER"]
        keyed = (j for j in inner if any(_sides(condition, seen, j.source.alias) for condition in where))
        return next(keyed, inner[0])

    def _filter(self, source: Source, conditions: Sequence[Tree]) -> None:
        if conditions:
            demanded = " AND ".join(f"({text_of(in_columns(c, source.names))})" for c in conditions)
            source.rows = self._layout.select(source.rows, columns(source.rows), f"WHERE {demanded}")

    def _join(self, left: Source, seen: Collection[str], join: Join, on: list[Tree], needed: set[Name]) -> Source:
        right = join.source
        if join.kind not in _RIGHT_STAYS:
            # Rows of the right side that match nothing are gone anyway.
            self._filter(right, _taken(on, {right.alias}))
        large = self._beside_a_small(left, right, join.kind)
        if large is not None:
            return self._with_all(large, left if large is right else right, join.kind, on, needed | names_in(on))
        pairs = [sides for condition in on if (sides := _sides(condition, seen, right.alias))]
        if not pairs:
            raise Indivisible(f"a join of {right.alias} without an equality")
        one, names = self._with_keys(left, [a for a, _ in pairs], needed | names_in(on))
        other, more = self._with_keys(right, [b for _, b in pairs], needed | names_in(on), taken=list(one.rows.types))
        types = [self._common(one.rows.types[a], other.rows.types[b]) for a, b in zip(names, more, strict=True)]
        met_one, met_other = self._met(
            one, other, list(zip(names, types, strict=True)), list(zip(more, types, strict=True))
        )
        met_one, met_other = self._layout.whole(met_one), self._layout.whole(met_other)
        return self._local(
            Source(left.alias, met_one, one.names), Source(right.alias, met_other, other.names), join.kind, on
        )

    def _beside_a_small(self, left: Source, right: Source, kind: str) -> Source | None:
        """The large side, which need not move since every task can be given the other one; None where there is none."""
        layout = self._layout
        if kind not in _RIGHT_STAYS and layout.is_large(left.rows) and layout.is_small(right.rows):
            return left
        return right if kind == "INNER" and layout.is_large(right.rows) and layout.is_small(left.rows) else None

    def _with_all(self, large: Source, small: Source, kind: str, on: Sequence[Tree], needed: set[Name]) -> Source:
        """The join of rows where they lie with all of a small side."""
        one, _ = self._with_keys(large, [], needed)
        other, _ = self._with_keys(small, [], needed, taken=list(one.rows.types))
        given = self._layout.everywhere(other.rows, small.alias)
        return self._local(one, Source(small.alias, given, other.names), kind, on)

    def _with_keys(
        self, source: Source, keys: Sequence[Tree], needed: set[Name], taken: Sequence[str] = ()
    ) -> tuple[Source, list[str]]:
        """A side with the columns that are needed, and its keys as columns."""
        items: dict[str, str] = {}
        names: dict[Name, str] = {}
        for name, column in source.names.items():
            if name in needed:
                names[name] = unique(column, [*items, *taken])
                items[names[name]] = quoted(column)
        if not items and not keys:  # there must be a column
            column = next(iter(source.rows.types))
            items[unique(column, taken)] = quoted(column)
        texts = {text: column for column, text in items.items()}
        found = []
        for key in keys:
            text = text_of(in_columns(key, source.names))
            if text not in texts:
                texts[text] = unique("_on", [*items, *taken])
                items[texts[text]] = text
            found.append(texts[text])
        return Source(source.alias, self._layout.select(source.rows, items), names), found

    def _common(self, left: str, right: str) -> str:
        def widest() -> str:
            text = f"SELECT CASE WHEN true THEN CAST(NULL AS {left}) ELSE CAST(NULL AS {right}) END AS x"
            return self._layout.catalog.types(text)["x"]

        found = comparable(left, right, widest)
        if found is None:
            raise Indivisible(f"a join that compares {left} with {right}")
        return found

    def _met(
        self, left: Source, right: Source, one: Sequence[tuple[str, str]], other: Sequence[tuple[str, str]]
    ) -> tuple[Relation, Relation]:
        """Both sides where equal keys meet: where one of them lies already, if the other can still get there."""
        layout = self._layout
        for here, there, key, key_there, alias in (
            (left, right, one, other, right.alias),
            (right, left, other, one, left.alias),
        ):
            order = _partitioned(here.rows, key)
            if order is not None and there.rows.level < here.rows.level:
                sent = layout.by_key(there.rows, [key_there[i] for i in order], here.rows.level, alias)
                return (here.rows, sent) if here is left else (sent, here.rows)
        level = layout.next_level([left.rows, right.rows])
        return layout.by_key(left.rows, one, level, left.alias), layout.by_key(right.rows, other, level, right.alias)

    def _local(self, left: Source, right: Source, kind: str, on: Sequence[Tree]) -> Source:
        """The join of what is in a task: each part of the left side with the one part of the right."""
        one, other = left.rows, right.rows
        names = {**left.names, **right.names}
        condition = " AND ".join(f"({text_of(in_columns(c, names))})" for c in on) or "true"
        shown = ", ".join(map(quoted, one.types if kind in _LEFT_ONLY else [*one.types, *other.types]))
        tail = f"{kind} JOIN {other.parts[0].source('_right')} ON {condition}"
        parts = [
            replace(part, text=f"SELECT {shown} FROM {part.source('_left')} {tail}", table="") for part in one.parts
        ]
        made = self._layout.relation(parts[0].text, one.level, [*one.reads, *other.reads])
        keys: tuple[Key, ...] = ()
        if kind not in _RIGHT_STAYS:
            keys += one.keys
        if kind in ("INNER", "RIGHT"):
            keys += other.keys
        return Source(
            left.alias, replace(made, parts=tuple(parts), keys=keys), left.names if kind in _LEFT_ONLY else names
        )


def _nullable(first: Source, joins: Sequence[Join]) -> set[str]:
    """The tables whose rows an outer join may replace by nulls."""
    found: set[str] = set()
    seen = {first.alias}
    for join in joins:
        if join.kind in _LEFT_STAYS:
            found.add(join.source.alias)
        if join.kind in _RIGHT_STAYS:
            found |= seen
        seen.add(join.source.alias)
    return found


def _taken(conditions: list[Tree], aliases: Collection[str]) -> list[Tree]:
    """Take out of a list the conditions that read some tables and no others."""
    found = [c for c in conditions if aliases_in(c) and aliases_in(c) <= set(aliases)]
    conditions[:] = [c for c in conditions if not any(c is taken for taken in found)]
    return found


def _sides(condition: Tree, seen: Collection[str], alias: str) -> tuple[Tree, Tree] | None:
    """The sides of an equality between tables that are joined already and one that comes, in this order."""
    if not isinstance(condition, exp.EQ):
        return None
    one, other = condition.this, condition.expression
    for left, right in ((one, other), (other, one)):
        if aliases_in(right) == {alias} and aliases_in(left) and aliases_in(left) <= set(seen):
            return left, right
    return None


def _partitioned(rows: Relation, key: Sequence[tuple[str, str]]) -> list[int] | None:
    """The order of some of a join's keys by which rows lie in their tasks already; None where they do not."""
    if rows.level == 0 or rows.gathered:
        return None
    wanted = list(key)
    for known in rows.keys:
        if all(column in wanted for column in known):
            return [wanted.index(column) for column in known]
    return None
