"""Relations: the rows of a query as they lie spread over the tasks of a level, and how they get to the next.

Level 0 are the map tasks, which read one input each; level k is the k-th reduce. A fragment, DuckDB's text, makes a
relation out of what its level has. An exchange sends rows on: by a key, so that equal keys meet in one task, or all of
them to one. Rows of a small input, known before the run, may be given to every task.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import duckdb

from paibook.runtimes.mapreduce.sql.catalog import Catalog
from paibook.runtimes.mapreduce.sql.fragments import is_lost, quoted
from paibook.runtimes.mapreduce.table_shuffle import ROUTE

Key = tuple[tuple[str, str], ...]  # columns, each with the type it is hashed as


class Indivisible(Exception):
    """A query, or a part of one, that must see all its rows in one task; says why."""


@dataclass(frozen=True, slots=True)
class Part:
    """A fragment that makes some rows of a relation.

    Attributes:
        text: A SELECT.
        input: What it reads at level 0.
        columns: Of that.
        table: Where it does no more than to take columns of a table, that table.
    """

    text: str
    input: str = ""
    columns: tuple[str, ...] = ()
    table: str = ""

    def source(self, alias: str = "_rows") -> str:
        """What stands for it after FROM."""
        return quoted(self.table) if self.table else f"({self.text}) AS {alias}"


@dataclass(frozen=True, eq=False)
class Relation:
    """Rows, spread over the tasks of a level.

    Attributes:
        level: Where they are.
        parts: What makes them; all parts' rows count, so this is a UNION ALL.
        types: Of the columns, by name.
        reads: The exchanges whose rows the parts read.
        gathered: Whether the level has one task.
        keys: Columns of which equal values are in one task; any of these.
    """

    level: int
    parts: tuple[Part, ...]
    types: Mapping[str, str]
    reads: tuple[Exchange, ...] = ()
    gathered: bool = False
    keys: tuple[Key, ...] = ()

    def meets(self, columns: Collection[str]) -> bool:
        """Whether rows with equal values in these columns are in one task already."""
        return self.gathered or any({name for name, _ in key} <= set(columns) for key in self.keys)


@dataclass(frozen=True, eq=False)
class Exchange:
    """Rows on their way to a later level.

    Attributes:
        name: What the fragments there call them.
        level: Where they go; 0 for rows that every task is given.
        source: What is sent, with the column ``ROUTE`` where it goes by key.
        gathers: Whether it all goes to one task.
        is_large: Whether it comes from inputs not all of which are small.
    """

    name: str
    level: int
    source: Relation
    gathers: bool
    is_large: bool


@dataclass
class Layout:
    """Makes relations, and gives levels and names to their exchanges.

    Args:
        catalog: Knows the types; learns the exchanges.
    """

    catalog: Catalog
    _gathering: dict[int, bool] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._names |= {name.lower() for name in self.catalog.inputs}

    def scan(self, input: str, names: Sequence[str]) -> Relation:
        """Some columns of an input."""
        text = f"SELECT {', '.join(map(quoted, names))} FROM {quoted(input)}"
        return Relation(0, (Part(text, input, tuple(names), input),), self._types(text))

    def relation(self, text: str, level: int, reads: Sequence[Exchange] = ()) -> Relation:
        """What a fragment makes.

        Raises:
            Indivisible: DuckDB does not take the fragment, which a query may do that cannot be cut like this.
        """
        gathered = self._gathering.get(level, False)
        return Relation(level, (Part(text),), self._types(text), tuple(dict.fromkeys(reads)), gathered)

    def select(
        self, rows: Relation, items: Mapping[str, str], tail: str = "", distinct: bool = False, keep: bool = True
    ) -> Relation:
        """A SELECT over each task's rows.

        Args:
            rows: What it reads.
            items: Expressions of rows' columns, by the new columns' names.
            tail: The clauses after FROM.
            distinct: Whether equal rows of a part become one.
            keep: Whether rows stay what they were, so that columns that are kept still say where equal ones are.
        """
        if items == columns(rows) and list(items) == list(rows.types) and not tail and not distinct:
            return rows
        listed = ", ".join(
            text if text == quoted(name) else f"{text} AS {quoted(name)}" for name, text in items.items()
        )
        start = "SELECT DISTINCT" if distinct else "SELECT"
        parts = tuple(
            replace(part, text=f"{start} {listed} FROM {part.source()} {tail}".rstrip(), table="")
            for part in rows.parts
        )
        renamed: dict[str, str] = {}
        for name, text in items.items():
            renamed.setdefault(text, name)
        keys = tuple(
            tuple((renamed[quoted(name)], type) for name, type in key)
            for key in rows.keys
            if keep and all(quoted(name) in renamed for name, _ in key)
        )
        return replace(rows, parts=parts, types=self._types(parts[0].text), keys=keys)

    def whole(self, rows: Relation) -> Relation:
        """The same rows of a task as one fragment."""
        if len(rows.parts) == 1:
            return rows
        return replace(rows, parts=(Part(" UNION ALL ".join(f"({part.text})" for part in rows.parts)),))

    def by_key(self, rows: Relation, keys: Sequence[tuple[str, str]], level: int, name: str) -> Relation:
        """Rows sent so that equal keys meet.

        Args:
            rows: Any.
            keys: Columns, each with the type to hash it as: what compares as equal must be equal in that type.
            level: Where to, from ``next_level``.
            name: Leads that of the exchange.
        """
        hashed = ", ".join(
            quoted(column) if rows.types[column] == type else f"CAST({quoted(column)} AS {type})"
            for column, type in keys
        )
        sent = self.select(rows, {**columns(rows), ROUTE: f"hash({hashed})"})
        return replace(self._sent(sent, level, name, False), keys=(tuple(keys),))

    def by_columns(self, rows: Relation, names: Sequence[str], level: int, name: str) -> Relation:
        """Rows sent so that equal values of some columns meet."""
        return self.by_key(rows, [(column, rows.types[column]) for column in names], level, name)

    def gather(self, rows: Relation, name: str, level: int | None = None) -> Relation:
        """All rows sent to one task."""
        if rows.gathered and level in (None, rows.level):
            return rows
        level = level or self.next_level([rows], gathers=True)
        sent = rows if rows.types else self.select(rows, {"_one": "1"})
        return self._sent(sent, level, name, True)

    def is_small(self, rows: Relation) -> bool:
        """Whether rows can be given to every task: those of one small input, row by row."""
        return rows.level == 0 and len(rows.parts) == 1 and not rows.reads and rows.parts[0].input in self.catalog.small

    def is_large(self, rows: Relation) -> bool:
        """Whether rows come from inputs not all of which are small."""
        read = {part.input for part in rows.parts if part.input} - self.catalog.small
        return bool(read) or any(exchange.is_large for exchange in rows.reads)

    def everywhere(self, rows: Relation, name: str) -> Relation:
        """Small rows as every task has them."""
        return self._sent(rows, 0, name, False)

    def next_level(self, rows: Sequence[Relation], gathers: bool = False) -> int:
        """The first level after some relations whose tasks get rows by key, or, if ``gathers``, which has one task."""
        level = 1 + max(relation.level for relation in rows)
        while self._gathering.setdefault(level, gathers) != gathers:
            level += 1
        return level

    def first_gathering(self) -> int:
        """The first level that has one task."""
        level = 1
        while not self._gathering.setdefault(level, True):
            level += 1
        return level

    def name(self, hint: str) -> str:
        """A name that nothing else has."""
        number = 1
        while f"{hint}_{number}".lower() in self._names:
            number += 1
        self._names.add(f"{hint}_{number}".lower())
        return f"{hint}_{number}"

    def _sent(self, sent: Relation, level: int, name: str, gathers: bool) -> Relation:
        lost = next((type for type in sent.types.values() if is_lost(type)), None)
        if lost is not None:
            raise Indivisible(f"a column of the type {lost}, which Arrow does not keep")
        exchange = Exchange(self.name(name), level, sent, gathers, self.is_large(sent))
        try:
            self.catalog.create(exchange.name, sent.types)
        except duckdb.Error as error:
            types = ", ".join(sent.types.values())
            raise Indivisible(f"a column of a type that no table can have (one of {types})") from error
        kept = ", ".join(quoted(column) for column in sent.types if column != ROUTE)
        made = self.relation(f"SELECT {kept} FROM {quoted(exchange.name)}", level, [exchange])
        return replace(made, parts=(replace(made.parts[0], table=exchange.name),))

    def _types(self, text: str) -> dict[str, str]:
        try:
            return self.catalog.types(text)
        except duckdb.Error as error:
            raise Indivisible(f"an expression that is bound to its place ({str(error).splitlines()[0]})") from error


def columns(rows: Relation) -> dict[str, str]:
    """All of a relation's columns as they are, for ``Layout.select``."""
    return {name: quoted(name) for name in rows.types}


def unique(name: str, taken: Collection[str]) -> str:
    """A column's name, with a number where it is taken; letters' cases make no difference."""
    lower = {known.lower() for known in taken} | {ROUTE}
    number, found = 0, name
    while found.lower() in lower:
        number += 1
        found = f"{name}_{number}"
    return found
