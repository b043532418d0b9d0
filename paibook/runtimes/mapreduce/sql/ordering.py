"""Ordering: ORDER BY, LIMIT and OFFSET; what a LIMIT leaves is looked for in every task first, then in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlglot import exp

from paibook.runtimes.mapreduce.sql.expressions import Tree, any_node, text_of
from paibook.runtimes.mapreduce.sql.fragments import quoted
from paibook.runtimes.mapreduce.sql.relations import Indivisible, Layout, Relation, columns


@dataclass(frozen=True)
class Term:
    """One term of ORDER BY.

    Attributes:
        name: The column.
        tree: The term, with its direction.
    """

    name: str
    tree: Tree

    def text(self) -> str:
        """The term, over the column."""
        copy = self.tree.copy()
        copy.set("this", exp.column(self.name, quoted=True))
        return text_of(copy)


class Ordering:
    """Orders and cuts relations.

    Args:
        layout: Where.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def ordered(self, rows: Relation, shown: Sequence[str], terms: Sequence[Term], tree: Tree, hint: str) -> Relation:
        """The rows in order, and no more than asked for.

        Args:
            rows: Any.
            shown: The columns that stay.
            terms: Of ORDER BY.
            tree: The query that has the LIMIT and OFFSET.
            hint: Leads the names of exchanges.
        """
        limit, offset = tree.args.get("limit"), tree.args.get("offset")
        kept = {name: quoted(name) for name in shown}
        if not terms and limit is None and offset is None:
            return rows
        if any_node(limit, exp.Query) or any_node(offset, exp.Query) or isinstance(limit, exp.Fetch):
            raise Indivisible("a LIMIT that is a query, or FETCH")
        order = f"ORDER BY {', '.join(term.text() for term in terms)}" if terms else ""
        most = _number(limit, "expression")
        skipped = 0 if offset is None else _number(offset, "expression")
        if most is not None and skipped is not None and not rows.gathered:
            rows = self._layout.select(rows, columns(rows), f"{order} LIMIT {most + skipped}", keep=False)
        rows = self._layout.whole(self._layout.gather(rows, hint))
        tail = " ".join(text_of(part) for part in (limit, offset) if part is not None)
        return self._layout.select(rows, kept, f"{order} {tail}".strip())


def _number(tree: Tree | None, key: str) -> int | None:
    """A plain whole number of a clause; None where it has something else."""
    found = None if tree is None or tree.args.get("limit_options") else tree.args.get(key)
    return int(found.name) if isinstance(found, exp.Literal) and found.name.isdigit() else None
