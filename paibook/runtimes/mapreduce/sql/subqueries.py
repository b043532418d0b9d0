"""Subqueries of WHERE that are joins: ``x IN (SELECT ...)``, and EXISTS or NOT EXISTS with an equality to the row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sqlglot import exp

from paibook.runtimes.mapreduce.sql.expressions import Functions, Tree, aliases_in, any_node, conjuncts, names_in
from paibook.runtimes.mapreduce.sql.joins import Join, Source
from paibook.runtimes.mapreduce.sql.relations import Indivisible, Relation

_ONLY_ROWS = ("group", "having", "qualify", "limit", "offset", "windows", "with", "with_")  # not in what EXISTS asks


class Tables(Protocol):
    """Where a query's tables come from."""

    def source(self, tree: Tree, used: set[str]) -> Relation:
        """A table, CTE or query, with the columns that are used at least."""


class Subqueries:
    """Makes joins of subqueries.

    Args:
        functions: DuckDB's.
        tables: Resolves what they read.
    """

    def __init__(self, functions: Functions, tables: Tables) -> None:
        self._functions, self._tables = functions, tables

    def join(self, condition: Tree, number: int) -> Join:
        """The semi or anti join that a condition is, after ``is_join`` said so.

        Args:
            condition: Of WHERE.
            number: Makes the join's alias unique.

        Raises:
            Indivisible: It is none that can be divided.
        """
        alias = f"_sub{number}"
        if isinstance(condition, exp.In):
            return self._in(condition, alias)
        kind = "SEMI" if isinstance(condition, exp.Exists) else "ANTI"
        return self._exists(condition.find(exp.Exists).this.unnest(), alias, kind)

    def _in(self, condition: Tree, alias: str) -> Join:
        query = condition.args["query"].unnest()
        inside = {source.alias_or_name for source in query.find_all(exp.Table, exp.Subquery)}
        if any(table not in inside for table, _ in names_in([query])):
            raise Indivisible("a query that depends on the row around it")
        rows = self._tables.source(query, set())
        column = next(iter(rows.types))
        equality = exp.EQ(this=condition.this.copy(), expression=exp.column(column, table=alias, quoted=True))
        return Join(_source(alias, rows), "SEMI", (equality,))

    def _exists(self, query: Tree, alias: str, kind: str) -> Join:
        """What of the query's WHERE speaks of the row around it becomes the join's condition."""
        if not isinstance(query, exp.Select) or any(query.args.get(name) for name in _ONLY_ROWS):
            raise Indivisible("an EXISTS of more than rows")
        if self._functions.aggregates(query.expressions):
            raise Indivisible("an EXISTS of an aggregate")
        query = query.copy()
        inside = _aliases(query)
        where = query.args.get("where")
        inner: list[Tree] = []
        outer: list[Tree] = []
        for condition in conjuncts(where.this if where is not None else None):
            (inner if any_node(condition, exp.Query) or aliases_in(condition) <= inside else outer).append(condition)
        made: dict[tuple[str, str], str] = {}
        on = [_from_outside(condition, inside, made, alias) for condition in outer]
        query.set("where", exp.Where(this=exp.and_(*inner, copy=False)) if inner else None)
        query.set("order", None)
        query.set("distinct", None)
        query.set("expressions", [_item(table, column, name) for (table, column), name in made.items()])
        if not made or any(table not in inside for table, _ in names_in(_outermost(query))):
            raise Indivisible("an EXISTS without an equality to the row around it")
        return Join(_source(alias, self._tables.source(query, set())), kind, tuple(on))


def is_join(condition: Tree) -> bool:
    """Whether a condition of WHERE is an IN with a query, an EXISTS or a NOT EXISTS."""
    if isinstance(condition, exp.In):
        return condition.args.get("query") is not None
    inner = condition.this.unnest() if isinstance(condition, exp.Not) else condition
    return isinstance(inner, exp.Exists)


def read_around(condition: Tree) -> list[Tree]:
    """What such a condition reads of the row around it: expressions, not all of whose columns are that row's."""
    return [condition.this] if isinstance(condition, exp.In) else [condition]


def _source(alias: str, rows: Relation) -> Source:
    return Source(alias, rows, {(alias, name): name for name in rows.types})


def _aliases(query: Tree) -> set[str]:
    start = query.args.get("from_") or query.args.get("from")
    tables = [start.this] if start is not None else []
    return {table.alias_or_name for table in [*tables, *(join.this for join in query.args.get("joins") or ())]}


def _outermost(query: Tree) -> Sequence[Tree]:
    """The conditions of a query's joins and its WHERE, but for those with queries, which are looked at later."""
    found = [join.args["on"] for join in query.args.get("joins") or () if join.args.get("on") is not None]
    where = query.args.get("where")
    return [c for c in [*found, *conjuncts(where.this if where is not None else None)] if not any_node(c, exp.Query)]


def _from_outside(condition: Tree, inside: set[str], made: dict[tuple[str, str], str], alias: str) -> Tree:
    """A condition with the subquery's columns as the join's right side has them."""

    def moved(node: Tree) -> Tree:
        if not isinstance(node, exp.Column) or node.table not in inside:
            return node
        name = made.setdefault((node.table, node.name), f"_c{len(made)}")
        return exp.column(name, table=alias, quoted=True)

    return condition.copy().transform(moved)


def _item(table: str, column: str, name: str) -> Tree:
    return exp.alias_(exp.column(column, table=table, quoted=True), name, quoted=True)
