"""Windows: OVER and WINDOW; rows are sent by what the partitions of all windows have in common."""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp

from paibook.runtimes.mapreduce.sql.expressions import Tree, text_of
from paibook.runtimes.mapreduce.sql.fragments import quoted
from paibook.runtimes.mapreduce.sql.relations import Indivisible, Layout, Relation, columns, unique


class Windows:
    """Brings rows together for windows.

    Args:
        layout: Where.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def met(self, rows: Relation, trees: Sequence[Tree], hint: str) -> Relation:
        """The rows where each window's partitions are whole.

        Args:
            rows: Any.
            trees: Expressions over its columns, with windows in them or without.
            hint: Leads the name of the exchange.
        """
        windows = [window for tree in trees for window in tree.find_all(exp.Window)]
        if not windows or rows.gathered:
            return rows
        common = _common(windows)
        if not common:
            return self._layout.gather(rows, hint)
        if rows.level and rows.meets([name for name in rows.types if quoted(name) in common]):
            return self._layout.whole(rows)
        items, keys = columns(rows), []
        for text in common:
            name = next((name for name in rows.types if quoted(name) == text), None)
            if name is None:
                name = unique("_by", list(items))
                items[name] = text
            keys.append(name)
        sent = self._layout.select(rows, items)
        return self._layout.by_columns(sent, keys, self._layout.next_level([rows]), hint)


def inlined(tree: Tree) -> list[Tree]:
    """Write what a block's WINDOW clause defines where it is used.

    Returns:
        The expressions of the clause, which is gone.

    Raises:
        Indivisible: A window is made from another.
    """
    defined = {window.name.lower(): window for window in tree.args.get("windows") or ()}
    for window in tree.find_all(exp.Window):
        name = window.args.get("alias")
        if name is None or window.arg_key == "windows":
            continue
        found = defined.get(name.name.lower())
        if found is None or window.args.get("partition_by") or window.args.get("order") or found.args.get("alias"):
            raise Indivisible("a WINDOW made from another")
        for key in ("partition_by", "order", "spec"):
            value = found.args.get(key)
            if value:
                window.set(key, [part.copy() for part in value] if isinstance(value, list) else value.copy())
        window.set("alias", None)
    tree.set("windows", None)
    return list(defined.values())


def _common(windows: Sequence[Tree]) -> list[str]:
    """What all windows are partitioned by."""
    found = [[text_of(part) for part in window.args.get("partition_by") or ()] for window in windows]
    return [text for text in dict.fromkeys(found[0]) if all(text in other for other in found)]
