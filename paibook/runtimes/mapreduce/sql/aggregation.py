"""Aggregation: GROUP BY in two phases where the aggregates allow it, else where all rows of a group have met."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlglot import exp

from paibook.runtimes.mapreduce.sql.expressions import Functions, Tree, function_name, is_number, text_of
from paibook.runtimes.mapreduce.sql.fragments import quoted
from paibook.runtimes.mapreduce.sql.relations import Indivisible, Layout, Relation, unique

# What makes one of several: of parts' results the result of all.
_MERGED = {
    "sum": "sum",
    "count": "sum",
    "count_star": "sum",
    "count_if": "sum",
    "countif": "sum",
    "min": "min",
    "max": "max",
    "any_value": "any_value",
    "bool_and": "bool_and",
    "bool_or": "bool_or",
    "logical_and": "bool_and",
    "logical_or": "bool_or",
    "bit_and": "bit_and",
    "bit_or": "bit_or",
    "bit_xor": "bit_xor",
}
_WIDE = re.compile(r"DECIMAL\((?:19|2\d|3\d),(\d+)\)")  # whose sums may have more than 38 digits; with its scale
_COUNTS = ("count", "count_star", "count_if", "countif")  # 0 of nothing, where a sum is NULL
_BLIND = ("min", "max", "bool_and", "bool_or", "any_value")  # to rows that come twice


@dataclass(frozen=True)
class _Aggregate:
    """One aggregate.

    Attributes:
        tree: Its call, with its FILTER.
        text: The same, over the columns at hand.
        name: The column it becomes.
        type: What DuckDB makes of it.
    """

    tree: Tree
    text: str
    name: str
    type: str

    @property
    def call(self) -> Tree:
        call = self.tree.this if isinstance(self.tree, exp.Filter) else self.tree
        # sqlglot says of any_value what it does anyway.
        is_any = isinstance(call, exp.IgnoreNulls) and isinstance(call.this, exp.AnyValue)
        return call.this if is_any else call

    @property
    def is_plain(self) -> bool:
        """Whether it is a function of one argument at most, whose rows' order means nothing."""
        call = self.call
        if isinstance(call, (exp.WithinGroup, exp.IgnoreNulls, exp.RespectNulls)):
            return False
        if call.find(exp.Order) is not None or isinstance(call.this, exp.Distinct):
            return False
        arguments = [value for key, value in call.args.items() if key != "this" and isinstance(value, (list, exp.Expr))]
        return not any(arguments)

    @property
    def is_blind(self) -> bool:
        """Whether it does not see that rows come twice."""
        return isinstance(self.call.this, exp.Distinct) or (self.is_plain and function_name(self.call) in _BLIND)


class Aggregation:
    """Groups relations.

    Args:
        layout: Where.
        functions: DuckDB's.
    """

    def __init__(self, layout: Layout, functions: Functions) -> None:
        self._layout, self._functions = layout, functions

    def grouped(
        self, rows: Relation, groups: Sequence[Tree], calls: Sequence[Tree], hint: str
    ) -> tuple[Relation, dict[str, str]]:
        """One row for each group.

        Args:
            rows: Any.
            groups: What is grouped by; none makes one group of all, even of nothing.
            calls: The aggregates, over ``rows``' columns.
            hint: Leads the names of exchanges.

        Returns:
            The groups, and the column that each expression, as text, has become.

        Raises:
            Indivisible: Nothing is asked of the one group.
        """
        if not groups and not calls:
            raise Indivisible("one group of all rows, and no aggregate")
        names: dict[str, str] = {}
        for group in groups:
            wanted = group.name if isinstance(group, exp.Column) else "group"
            names.setdefault(text_of(group), unique(wanted, list(names.values())))
        keys = dict(names)
        aggregates = [self._aggregate(rows, call, names) for call in calls]
        by = {name: text for text, name in keys.items()}
        if self._is_together(rows, keys):
            made = self._direct(self._layout.whole(rows), by, aggregates)
        else:
            means = {a.name: self._halves(rows, a) for a in aggregates}
            if all(half is not None for half in means.values()):
                made = self._in_phases(rows, by, aggregates, {n: h for n, h in means.items() if h is not None}, hint)
            else:
                made = self._as_a_whole(rows, by, aggregates, hint)
        return made, names

    def _aggregate(self, rows: Relation, call: Tree, names: dict[str, str]) -> _Aggregate:
        text = text_of(call)
        inner = call.this if isinstance(call, exp.Filter) else call
        name = names[text] = unique(_word(function_name(inner)), list(names.values()))
        types = self._layout.select(rows, {name: text}).types
        return _Aggregate(call, text, name, types[name])

    def _is_together(self, rows: Relation, keys: Mapping[str, str]) -> bool:
        bare = [name for name in rows.types if quoted(name) in keys]
        return rows.level > 0 and rows.meets(bare)

    def _direct(self, rows: Relation, by: Mapping[str, str], aggregates: Sequence[_Aggregate]) -> Relation:
        items = {**by, **{a.name: a.text for a in aggregates}}
        return self._layout.select(rows, items, _group_by(by))

    def _in_phases(
        self,
        rows: Relation,
        by: Mapping[str, str],
        aggregates: Sequence[_Aggregate],
        halves: Mapping[str, tuple[dict[str, str], str]],
        hint: str,
    ) -> Relation:
        """Each part's share first, then all shares of a group."""
        if rows.level:
            rows = self._layout.whole(rows)
        partial = {**by, **{name: text for first, _ in halves.values() for name, text in first.items()}}
        shares = self._layout.select(rows, partial, _group_by(by), keep=False)
        met = self._meet(shares, list(by), hint)
        final = {name: quoted(name) for name in by}
        final |= {a.name: f"CAST({halves[a.name][1]} AS {a.type})" for a in aggregates}
        return self._layout.select(met, final, _group_by(by))

    def _as_a_whole(
        self, rows: Relation, by: Mapping[str, str], aggregates: Sequence[_Aggregate], hint: str
    ) -> Relation:
        """All rows of a group in one task, of their columns those that the aggregates read."""
        read = {c.name for a in aggregates for c in a.tree.find_all(exp.Column)}
        # A column may be called as a group is.
        moved = {name: unique(name, list(by)) for name in rows.types if name in read}
        sent = {**by, **{new: quoted(old) for old, new in moved.items()}}
        once = all(a.is_blind for a in aggregates)
        met = self._meet(self._layout.select(rows, sent, distinct=once), list(by), hint)
        items = {name: quoted(name) for name in by}
        for a in aggregates:
            tree = a.tree.copy().transform(
                lambda node: exp.column(moved[node.name], quoted=True) if isinstance(node, exp.Column) else node
            )
            items[a.name] = text_of(tree)
        return self._layout.select(met, items, _group_by(by))

    def _meet(self, rows: Relation, by: Sequence[str], hint: str) -> Relation:
        if not by:
            return self._layout.gather(rows, hint)
        return self._layout.by_columns(rows, by, self._layout.next_level([rows]), hint)

    def _halves(self, rows: Relation, a: _Aggregate) -> tuple[dict[str, str], str] | None:
        """What each part computes for an aggregate, by column, and what becomes of all parts' columns; None if it is
        not made in halves."""
        name = function_name(a.call)
        if not a.is_plain or _any_order(a.tree):
            return None
        column = f"_{a.name}"
        if name in ("avg", "mean"):
            return self._mean(rows, a, column)
        merge = _MERGED.get(name)
        if merge is None or (merge == "sum" and not is_number(a.type)):
            return None
        merged = f"{merge}({quoted(column)})"
        return {column: a.text}, f"coalesce({merged}, 0)" if name in _COUNTS else merged

    def _mean(self, rows: Relation, a: _Aggregate, column: str) -> tuple[dict[str, str], str] | None:
        argument = self._layout.select(rows, {"x": text_of(a.call.this)}).types["x"]
        if not is_number(argument) or a.type != "DOUBLE":
            return None
        value, unit = text_of(a.call.this), "1"
        if (wide := _WIDE.fullmatch(argument)) is not None:
            # avg adds up the digits as a HUGEINT, which holds more than the DECIMAL that is a sum's type.
            value, unit = f"CAST(replace(CAST({value} AS VARCHAR), '.', '') AS HUGEINT)", f"1e{wide[1]}"
        where = f" FILTER ({text_of(a.tree.expression)})" if isinstance(a.tree, exp.Filter) else ""
        sums = {f"{column}_sum": f"sum({value}){where}", f"{column}_count": f"count({value}){where}"}
        first, second = (quoted(name) for name in sums)
        return sums, f"CAST(sum({first}) AS DOUBLE) / nullif(sum({second}), 0) / {unit}"


def _any_order(tree: Tree) -> bool:
    """Whether an aggregate asks for its rows in an order."""
    return tree.find(exp.Order, exp.Ordered) is not None


def _group_by(by: Mapping[str, str]) -> str:
    return "GROUP BY " + ", ".join(str(i) for i in range(1, len(by) + 1)) if by else ""


def _word(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name) or "value"
