"""Blocks: one SELECT, from its tables to its rows, clause after clause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlglot import exp

from paibook.runtimes.mapreduce.sql.aggregation import Aggregation
from paibook.runtimes.mapreduce.sql.expressions import (
    Functions,
    Name,
    Tree,
    any_node,
    conjuncts,
    in_columns,
    loose_in,
    names_in,
    replaced,
    text_of,
)
from paibook.runtimes.mapreduce.sql.fragments import quoted
from paibook.runtimes.mapreduce.sql.joins import Join, Joining, Source
from paibook.runtimes.mapreduce.sql.ordering import Ordering, Term
from paibook.runtimes.mapreduce.sql.relations import Indivisible, Layout, Relation, columns, unique
from paibook.runtimes.mapreduce.sql.subqueries import Subqueries, Tables, is_join, read_around
from paibook.runtimes.mapreduce.sql.windows import Windows, inlined

_CLAUSES = (
    *("expressions", "from", "from_", "joins", "where", "group", "having", "qualify", "windows", "distinct", "order"),
    *("limit", "offset", "with", "with_"),
)
_KINDS = {"": "INNER", "INNER": "INNER", "CROSS": "INNER", "LEFT": "LEFT", "RIGHT": "RIGHT", "FULL": "FULL"}
_EXPLAINED = {"sample": "a SAMPLE", "pivots": "a PIVOT", "laterals": "a LATERAL"}


@dataclass
class _Clauses:
    """A block's expressions over the columns at hand.

    Attributes:
        items: Of SELECT, by the names of the output.
        having, qualify: What they demand.
        groups: Of GROUP BY; None where there is none.
        order: Of ORDER BY.
        terms: What ``order`` are terms of, with their directions.
    """

    items: dict[str, Tree]
    having: Tree | None
    qualify: Tree | None
    groups: list[Tree] | None
    order: list[Tree]
    terms: list[Tree]

    def trees(self) -> list[Tree]:
        return [*self.items.values(), *self.order, *(tree for tree in (self.having, self.qualify) if tree is not None)]

    def over(self, texts: Mapping[str, str]) -> None:
        """Put columns in place of what they have become."""
        self.items = {name: replaced(tree, texts) for name, tree in self.items.items()}
        self.order = [replaced(tree, texts) for tree in self.order]
        self.having = None if self.having is None else replaced(self.having, texts)
        self.qualify = None if self.qualify is None else replaced(self.qualify, texts)


class Blocks:
    """Divides blocks.

    Args:
        layout: Where.
        functions: DuckDB's.
        tables: Resolves what FROM names.
    """

    def __init__(self, layout: Layout, functions: Functions, tables: Tables) -> None:
        self._layout, self._functions, self._tables = layout, functions, tables

    def rows(self, tree: Tree, outermost: bool) -> Relation:
        """The rows of a qualified SELECT, in its order.

        Args:
            tree: The block.
            outermost: Whether its columns may be named alike.

        Raises:
            Indivisible: It cannot be cut; says why.
        """
        _check(tree)
        windows = inlined(tree)
        where, semi = self._where(tree)
        read = [*tree.expressions, *windows]
        read += [tree.args[name] for name in ("group", "having", "qualify", "order") if tree.args.get(name)]
        on = [join.args["on"] for join in _joins(tree) if join.args.get("on") is not None]
        around = [expression for condition in semi for expression in read_around(condition)]
        first, joins = self._from(tree, [*read, *where, *on, *around])
        _tell_order(tree, [first, *(join.source for join in joins if join.kind not in ("SEMI", "ANTI"))])
        subqueries = Subqueries(self._functions, self._tables)
        joins += [subqueries.join(condition, number) for number, condition in enumerate(semi)]
        needed = names_in(read)
        source, left = Joining(self._layout).joined(first, joins, where, needed)
        rows = self._filtered(source, left, needed)
        clauses = self._clauses(tree, source.names, outermost)
        rows = self._grouped(rows, clauses, first.alias)
        rows = Windows(self._layout).met(rows, clauses.trees(), first.alias)
        return self._shown(tree, rows, clauses, first.alias)

    def _filtered(self, source: Source, where: Sequence[Tree], needed: set[Name]) -> Relation:
        """The rows that WHERE leaves, with the columns that are needed."""
        kept = {column: quoted(column) for name, column in source.names.items() if name in needed}
        kept = kept or dict(list(columns(source.rows).items())[:1])
        demanded = " AND ".join(f"({text_of(in_columns(c, source.names))})" for c in where)
        return self._layout.select(source.rows, kept, f"WHERE {demanded}" if demanded else "")

    def _from(self, tree: Tree, read: Sequence[Tree]) -> tuple[Source, list[Join]]:
        # A term of ORDER BY may name a column without its table, where the output has that name too.
        names = names_in(read) | {("", column.name) for column in _loose_order(tree)}
        start = tree.args.get("from_") or tree.args.get("from")
        if start is None:
            raise Indivisible("a part that reads no table")
        first = self._source(start.this, names)
        joins = []
        for join in _joins(tree):
            side, kind = (join.side or "").upper(), (join.kind or "").upper()
            wanted = kind if kind in ("SEMI", "ANTI") else _KINDS.get(side or ("" if kind == "OUTER" else kind))
            if wanted is None or join.method or (kind in ("SEMI", "ANTI") and side):
                raise Indivisible(f"a join of the kind {' '.join(filter(None, (join.method, side, kind)))}")
            joins.append(Join(self._source(join.this, names), wanted, tuple(conjuncts(join.args.get("on")))))
        return first, joins

    def _source(self, tree: Tree, names: set[Name]) -> Source:
        alias = tree.alias_or_name
        used = {column for table, column in names if table in (alias, "")}
        rows = self._tables.source(tree, used)
        known = {name.lower(): name for name in rows.types}
        return Source(alias, rows, {(alias, lower): name for lower, name in known.items()})

    def _where(self, tree: Tree) -> tuple[list[Tree], list[Tree]]:
        """What WHERE demands, and the conditions that are joins."""
        where = tree.args.get("where")
        conditions = conjuncts(where.this if where is not None else None)
        plain = [condition for condition in conditions if not is_join(condition)]
        inside = [*plain, *tree.expressions, *(c.this for c in conditions if isinstance(c, exp.In))]
        if any(any_node(expression, exp.Query) for expression in inside):
            raise Indivisible("a query inside of an expression")
        return plain, [condition for condition in conditions if is_join(condition)]

    def _clauses(self, tree: Tree, names: Mapping[Name, str], outermost: bool) -> _Clauses:
        """The clauses over columns at hand."""
        items: dict[str, Tree] = {}
        output: dict[str, str] = {}
        for item in tree.expressions:
            if any_node(item, exp.Star) and not any_node(item, exp.Count):
                raise Indivisible("a * that is not known")
            alias = item.alias_or_name
            name = unique(alias, list(items))
            if name != alias and not outermost:
                raise Indivisible(f"two columns called {alias}")
            output.setdefault(alias, name)
            items[name] = in_columns(item.unalias(), names)
        having, qualify = (
            in_columns(clause.this, names) if (clause := tree.args.get(name)) is not None else None
            for name in ("having", "qualify")
        )
        groups = self._groups(tree, items, names)
        order: list[Tree] = []
        terms: list[Tree] = []
        clause = tree.args.get("order")
        for term in clause.expressions if clause is not None else ():
            inner = term.this.unnest()
            if isinstance(inner, exp.Var) and inner.name.upper() == "ALL":
                found = [item.copy() for item in items.values()]
            elif isinstance(inner, exp.Column) and not inner.table and inner.name in output:
                found = [items[output[inner.name]].copy()]
            else:
                found = [in_columns(term.this, names, {alias: items[name] for alias, name in output.items()})]
            order += found
            terms += [term] * len(found)
        return _Clauses(items, having, qualify, groups, order, terms)

    def _groups(self, tree: Tree, items: Mapping[str, Tree], names: Mapping[Name, str]) -> list[Tree] | None:
        group = tree.args.get("group")
        if group is None:
            return None
        if any_node(group, (exp.GroupingSets, exp.Cube, exp.Rollup)):
            raise Indivisible("GROUPING SETS, ROLLUP or CUBE")
        if group.args.get("all"):
            mixed = [item for item in items.values() if not self._functions.aggregates([item])]
            return [item for item in mixed if any_node(item, exp.Column)] or None
        found = [in_columns(expression.unnest(), names) for expression in group.expressions]
        # () is the group of all rows.
        return [expression for expression in found if expression != exp.Tuple()]

    def _grouped(self, rows: Relation, clauses: _Clauses, hint: str) -> Relation:
        calls = self._functions.aggregates(clauses.trees())
        if not calls and clauses.groups is None and clauses.having is None:
            return rows
        rows, texts = Aggregation(self._layout, self._functions).grouped(rows, clauses.groups or [], calls, hint)
        clauses.over(texts)
        if clauses.having is not None:
            rows = self._layout.select(rows, columns(rows), f"WHERE {text_of(clauses.having)}")
        return rows

    def _shown(self, tree: Tree, rows: Relation, clauses: _Clauses, hint: str) -> Relation:
        """SELECT's columns, DISTINCT, ORDER BY and LIMIT."""
        ordering = Ordering(self._layout)
        items = {name: text_of(item) for name, item in clauses.items.items()}
        shown = dict(items)
        terms = []
        for expression, term in zip(clauses.order, clauses.terms, strict=True):
            text = text_of(expression)
            name = next((name for name, item in items.items() if item == text), None)
            if name is None:
                if tree.args.get("distinct"):
                    raise Indivisible("an ORDER BY of what a DISTINCT leaves out")
                name = unique("_order", list(shown))
                shown[name] = text
            terms.append(Term(name, term))
        qualify = "" if clauses.qualify is None else f"QUALIFY {text_of(clauses.qualify)}"
        rows = self._layout.whole(rows) if qualify and rows.level else rows
        rows = self._layout.select(rows, shown, qualify)
        if tree.args.get("distinct"):
            rows = self.distinct(rows, hint)
        return ordering.ordered(rows, list(items), terms, tree, hint)

    def distinct(self, rows: Relation, hint: str) -> Relation:
        """One of the rows that are equal."""
        layout = self._layout
        if rows.level and rows.meets(list(rows.types)):
            return layout.select(layout.whole(rows), columns(rows), distinct=True)
        once = layout.select(rows, columns(rows), distinct=True)
        met = layout.by_columns(once, list(once.types), layout.next_level([once]), hint)
        return layout.select(met, columns(met), distinct=True)


def _loose_order(tree: Tree) -> list[Tree]:
    """Columns inside of ORDER BY's expressions that name no table; a column alone is the output's."""
    order = tree.args.get("order")
    terms = [term.this.unnest() for term in order.expressions] if order is not None else []
    return [column for term in terms if not isinstance(term, exp.Column) for column in loose_in(term)]


def _tell_order(tree: Tree, sources: Sequence[Source]) -> None:
    """Say of which table these columns are: inside of an expression DuckDB takes a table's before the output's."""
    for column in _loose_order(tree):
        tables = [source.alias for source in sources if (source.alias, column.name) in source.names]
        if len(tables) == 1:
            column.set("table", exp.to_identifier(tables[0], quoted=True))


def _joins(tree: Tree) -> list[Tree]:
    return list(tree.args.get("joins") or ())


def _check(tree: Tree) -> None:
    for name, value in tree.args.items():
        if value and name not in _CLAUSES:
            raise Indivisible(_EXPLAINED.get(name, f"a clause of SELECT that is not divided ({name})"))
    distinct = tree.args.get("distinct")
    if distinct is not None and distinct.args.get("on") is not None:
        raise Indivisible("DISTINCT ON")
    for join in _joins(tree):
        if join.args.get("using"):
            raise Indivisible("a USING whose columns are not known")
