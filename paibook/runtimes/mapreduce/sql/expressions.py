"""Expressions of a qualified query: taken apart, and put into the words of the columns that are at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlglot import ErrorLevel, exp
from sqlglot.errors import UnsupportedError

from paibook.runtimes.mapreduce.sql.relations import Indivisible

DIALECT = "duckdb"
Tree = Any  # of sqlglot; its classes were renamed more than once
Name = tuple[str, str]  # a table's alias and its column

_WRAPPERS = (exp.Filter, exp.WithinGroup, exp.IgnoreNulls, exp.RespectNulls)


def text_of(tree: Tree) -> str:
    """An expression as DuckDB reads it.

    Raises:
        Indivisible: It cannot be written as it was.
    """
    try:
        return str(tree.sql(dialect=DIALECT, unsupported_level=ErrorLevel.RAISE))
    except UnsupportedError as error:
        raise Indivisible(f"what DuckDB alone can read ({error})") from error


def conjuncts(tree: Tree | None) -> list[Tree]:
    """What an expression demands, AND by AND."""
    if tree is None:
        return []
    tree = tree.unnest()
    return [part.unnest() for part in tree.flatten()] if isinstance(tree, exp.And) else [tree]


def names_in(trees: Iterable[Tree]) -> set[Name]:
    """The columns that expressions read, with their tables' aliases."""
    return {(c.table, c.name) for tree in trees for c in tree.find_all(exp.Column) if c.table}


def aliases_in(tree: Tree) -> set[str]:
    """The tables that an expression reads."""
    return {alias for alias, _ in names_in([tree])}


def loose_in(tree: Tree) -> list[Tree]:
    """The columns of an expression that name no table."""
    return [c for c in tree.find_all(exp.Column) if not c.table and c.find_ancestor(exp.Lambda) is None]


def in_columns(tree: Tree, names: Mapping[Name, str], output: Mapping[str, Tree] | None = None) -> Tree:
    """An expression with the columns' names at hand in place of tables' columns.

    Args:
        tree: Any.
        names: Those at hand, by the query's.
        output: What names without a table stand for, over the columns at hand.

    Raises:
        Indivisible: It reads a whole row, or a column that is not known here.
    """

    def renamed(node: Tree) -> Tree:
        if not isinstance(node, exp.Column):
            return node
        if not node.table:
            if node.find_ancestor(exp.Lambda):
                return node
            if output and node.name in output:
                return exp.Paren(this=output[node.name].copy())
            raise Indivisible(f"a column that cannot be told ({node.name})")
        if (node.table, node.name) not in names:
            raise Indivisible(f"the column {node.table}.{node.name} comes from elsewhere")
        return exp.column(names[node.table, node.name], quoted=True)

    if tree.find(exp.Query):
        raise Indivisible("a query inside of an expression")
    if tree.find(exp.TableColumn):
        raise Indivisible("a whole row that is read as one value")
    if any(parameter.name in names.values() for found in tree.find_all(exp.Lambda) for parameter in found.expressions):
        raise Indivisible("a lambda's parameter has the name of a column")
    return tree.copy().transform(renamed)


def replaced(tree: Tree, texts: Mapping[str, str]) -> Tree:
    """An expression with columns in place of subexpressions.

    Args:
        tree: Any.
        texts: The columns, by what they stand for.
    """

    def column(node: Tree) -> Tree:
        if isinstance(node, exp.Identifier) or _is_of_window(node):
            return node
        found = texts.get(text_of(node))
        return node if found is None else exp.column(found, quoted=True)

    return tree.copy().transform(column)


class Functions:
    """Tells aggregates from other functions, by the list that DuckDB has of them.

    Args:
        aggregates: Their names.
    """

    def __init__(self, aggregates: frozenset[str]) -> None:
        self._aggregates = aggregates

    def aggregates(self, trees: Sequence[Tree]) -> list[Tree]:
        """The outermost aggregates of expressions, with their FILTER; each text once.

        The argument of a window's function may be one, the function itself is none.
        """
        found: dict[str, Tree] = {}
        for tree in trees:
            for node in self._walk(tree):
                found.setdefault(text_of(node), node)
        return list(found.values())

    def is_aggregate(self, node: Tree) -> bool:
        """Whether a function's call aggregates."""
        if isinstance(node, exp.Anonymous):
            return function_name(node) in self._aggregates
        return isinstance(node, exp.AggFunc)

    def _walk(self, node: Tree, in_window: bool = False) -> Iterator[Tree]:
        if isinstance(node, exp.Query):
            raise Indivisible("a query inside of an expression")
        if isinstance(node, exp.Window):
            yield from self._walk(node.this, in_window=True)
            for key, value in node.args.items():
                if key != "this":
                    yield from self._children(value)
            return
        wrapped = isinstance(node, _WRAPPERS)
        if not in_window and self.is_aggregate(_unwrapped(node) if wrapped else node):
            yield node
            return
        if in_window and wrapped:
            yield from self._walk(node.this, in_window=True)
            yield from self._children([value for key, value in node.args.items() if key != "this"])
            return
        yield from self._children(list(node.args.values()))

    def _children(self, value: Any) -> Iterator[Tree]:
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, list):
                yield from self._children(child)
            elif isinstance(child, exp.Expr):
                yield from self._walk(child)


def _unwrapped(node: Tree) -> Tree:
    while isinstance(node, _WRAPPERS):
        node = node.this
    return node


def _is_of_window(node: Tree) -> bool:
    """Whether a call is a window's own function, which is no aggregate."""
    while isinstance(node.parent, _WRAPPERS) and node.arg_key == "this":
        node = node.parent
    return isinstance(node.parent, exp.Window) and node.arg_key == "this"


def function_name(node: Tree) -> str:
    """What DuckDB calls a function, in small letters."""
    if isinstance(node, exp.Anonymous):
        return str(node.name).lower()
    return text_of(node).partition("(")[0].strip().lower()


def any_node(tree: Tree, kinds: type | tuple[type, ...]) -> bool:
    """Whether a kind of expression is in a tree."""
    return tree is not None and tree.find(kinds) is not None


def comparable(left: str, right: str, common: Callable[[], str]) -> str | None:
    """The type to hash two columns as, so that values that DuckDB compares as equal meet; None where there is none.

    Args:
        left, right: The columns' types.
        common: The type that holds both, of those that are whole numbers, fractions or decimals.
    """
    if left == right:
        return left
    if not (is_number(left) and is_number(right)):
        return "TIMESTAMP" if {left, right} == {"DATE", "TIMESTAMP"} else None
    return common()


def is_number(type: str) -> bool:
    """Whether a type of DuckDB's is a number's."""
    return type.startswith("DECIMAL") or type in _NUMBERS


_SIGNED = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_NUMBERS = (*_SIGNED, *(f"U{name}" for name in _SIGNED), "FLOAT", "DOUBLE")
