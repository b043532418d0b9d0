"""Queries: SELECTs, set operations and CTEs, divided block by block; what cannot be divided goes to one task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.qualify import qualify

from paibook.runtimes.mapreduce.sql.blocks import Blocks
from paibook.runtimes.mapreduce.sql.catalog import Catalog
from paibook.runtimes.mapreduce.sql.expressions import DIALECT, Functions, Tree, function_name, names_in, text_of
from paibook.runtimes.mapreduce.sql.fragments import quoted
from paibook.runtimes.mapreduce.sql.ordering import Ordering, Term
from paibook.runtimes.mapreduce.sql.relations import Exchange, Indivisible, Layout, Relation

_DRAWN = ("random", "rand", "uuid", "gen_random_uuid", "uuidv4", "uuidv7", "nextval", "setseed")
_NOW = (exp.CurrentTimestamp, exp.CurrentDate, exp.CurrentTime, exp.CurrentDatetime)
_NOW_NAMES = ("now", "today", "transaction_timestamp", "get_current_timestamp", "get_current_time")

Defined = Mapping[str, Callable[[], Relation]]  # CTEs that can be seen, by name


class Queries:
    """Divides a query.

    Args:
        catalog: Knows the inputs.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.reasons: list[str] = []
        self._catalog = catalog
        self._layout = Layout(catalog)
        self._functions = Functions(catalog.aggregates())
        self._inputs = {name.lower(): name for name in catalog.inputs}

    def divided(self, tree: Tree) -> Relation:
        """The rows of a query, cut as far as it can be; ``reasons`` tells why not further.

        Args:
            tree: As parsed.

        Raises:
            Indivisible: It cannot be cut at all, and ``whole`` is what is left.
        """
        if any(not _is_order(collate) for collate in tree.find_all(exp.Collate)):
            raise Indivisible("a collation, by which texts are equal that are not")
        try:
            schema: dict[str, object] = {
                name.lower(): {c.lower(): t for c, t in types.items()} for name, types in self._catalog.inputs.items()
            }
            tree = self._with_now(tree.copy())
            for field in tree.find_all(exp.PropertyEQ):
                field.this.meta["case_sensitive"] = True  # a struct's field is called as it is written
            tree = qualify(tree, dialect=DIALECT, schema=schema)
        except SqlglotError as error:
            raise Indivisible(f"columns that cannot be told apart ({str(error).splitlines()[0]})") from error
        return self._rows(tree, {}, outermost=True)

    def whole(self, text: str) -> Relation:
        """The query as it stands, over all rows of all inputs in one task."""
        level = self._layout.first_gathering()
        reads: list[Exchange] = []
        for name in self._catalog.inputs:
            scanned = self._layout.scan(name, list(self._catalog.inputs[name]))
            reads += self._layout.gather(scanned, name, level=level).reads
        names = {read.source.parts[0].input: read.name for read in reads}
        tables = ", ".join(f"{quoted(name)} AS (FROM {quoted(made)})" for name, made in names.items())
        return self._layout.relation(f"WITH {tables} FROM ({text}\n)", level, reads)

    def _rows(self, tree: Tree, defined: Defined, outermost: bool = False) -> Relation:
        """A query's rows; gathered where it cannot be cut."""
        try:
            return self._cut(tree, defined, outermost)
        except Indivisible as error:
            reason = str(error)
        found = self._gathered(tree, defined)
        if reason not in self.reasons:
            self.reasons.append(reason)
        return found

    def _cut(self, tree: Tree, defined: Defined, outermost: bool) -> Relation:
        with_ = tree.args.get("with_") or tree.args.get("with")
        if with_ is not None:
            if with_.args.get("recursive") and any(_reads(cte.this, cte.alias) for cte in with_.expressions):
                raise Indivisible("a recursive CTE")
            defined = self._defined(with_, defined)
        if isinstance(tree, exp.Subquery):
            if tree.args.get("joins") or tree.args.get("pivots"):
                raise Indivisible("a query in parentheses that is joined")
            rows = self._rows(tree.this, defined, outermost)
            return self._ordered(rows, tree)
        if isinstance(tree, exp.SetOperation):
            return self._ordered(self._combined(tree, defined), tree)
        if not isinstance(tree, exp.Select):
            raise Indivisible(f"{tree.key.upper()} in place of SELECT")
        return Blocks(self._layout, self._functions, _Tables(self, defined)).rows(tree, outermost)

    def _defined(self, with_: Tree, defined: Defined) -> dict[str, Callable[[], Relation]]:
        """What WITH defines, each divided when it is first read, once."""
        known = dict(defined)
        for cte in with_.expressions:
            if any(function_name(call) in _DRAWN for call in cte.this.find_all(exp.Func)):
                raise Indivisible("a CTE with random values, which every reader must see alike")
            known[cte.alias.lower()] = _Once(self, cte.this, dict(known))
        return known

    def source(self, tree: Tree, used: set[str], defined: Defined) -> Relation:
        """What FROM names."""
        if isinstance(tree, exp.Subquery):
            return self._rows(tree, defined)
        if isinstance(tree, exp.Query):
            return self._rows(tree, defined)
        if not isinstance(tree, exp.Table) or not isinstance(tree.this, exp.Identifier):
            raise Indivisible(f"{tree.key.upper()} in FROM")
        if tree.args.get("pivots") or tree.args.get("sample") or tree.args.get("joins") or tree.db:
            raise Indivisible("a PIVOT, a sample or nested joins in FROM")
        name = tree.name.lower()
        if name in defined:
            return defined[name]()
        return self._scan(name, used)

    def _scan(self, name: str, used: set[str] | None) -> Relation:
        """An input's columns that are used; all where None."""
        if name not in self._inputs:
            raise Indivisible(f"{name} is no input")
        input = self._inputs[name]
        types = self._catalog.inputs[input]
        kept = [column for column in types if used is None or column.lower() in used] or list(types)[:1]
        return self._layout.scan(input, kept)

    def _gathered(self, tree: Tree, defined: Defined) -> Relation:
        """A query that runs in one task as it stands, over the columns that it reads."""
        tree = tree.copy()
        found: dict[str, Relation] = {}
        for table in list(tree.find_all(exp.Table)):
            name = table.name.lower()
            if not isinstance(table.this, exp.Identifier) or _is_defined_inside(table, tree):
                continue
            if name not in found:
                found[name] = defined[name]() if name in defined else self._scan(name, self._used(tree, name))
        if not found:
            raise Indivisible("a part that reads no table")
        level = self._layout.next_level(list(found.values()), gathers=True)
        gathered = {name: self._layout.gather(rows, name, level) for name, rows in found.items()}
        for table in list(tree.find_all(exp.Table)):
            name = table.name.lower()
            if name in gathered and not _is_defined_inside(table, tree):
                alias = table.alias_or_name
                table.set("this", exp.to_identifier(gathered[name].reads[0].name, quoted=True))
                table.set("alias", exp.TableAlias(this=exp.to_identifier(alias, quoted=True)))
        reads = [read for rows in gathered.values() for read in rows.reads]
        tree.set("alias", None)
        # Columns that are named alike get names of their own by this.
        return self._layout.relation(f"FROM ({text_of(tree)})", level, reads)

    def _used(self, tree: Tree, name: str) -> set[str] | None:
        """Columns of a table that a query may read; None where that cannot be said."""
        aliases = {table.alias_or_name for table in tree.find_all(exp.Table) if table.name.lower() == name}
        loose = any(
            not c.table and not c.find_ancestor(exp.Lambda) and not _is_order(c) for c in tree.find_all(exp.Column)
        )
        stars = any(not isinstance(star.parent, exp.Count) for star in tree.find_all(exp.Star))
        if loose or stars or tree.find(exp.Pivot, exp.Columns, exp.TableColumn):
            return None
        return {column for alias, column in names_in([tree]) if alias in aliases}

    def _combined(self, tree: Tree, defined: Defined) -> Relation:
        """A set operation."""
        if tree.args.get("by_name") or tree.args.get("side") or tree.args.get("kind") or tree.args.get("on"):
            raise Indivisible(f"{tree.key.upper()} BY NAME")
        sides = [self._rows(side, defined) for side in (tree.this, tree.expression)]
        names = list(sides[0].types)
        if len(sides[1].types) != len(names):
            raise Indivisible("sides with different numbers of columns")
        types = self._types_of_both(sides, names)
        sides = [
            self._layout.select(
                side,
                {
                    name: quoted(own) if side.types[own] == type else f"CAST({quoted(own)} AS {type})"
                    for name, own, type in zip(names, side.types, types, strict=True)
                },
            )
            for side in sides
        ]
        if isinstance(tree, exp.Union):
            both = self._one_below_the_other(sides)
            if not tree.args.get("distinct"):
                return both
            return Blocks(self._layout, self._functions, _Tables(self, defined)).distinct(both, "rows")
        level = self._layout.next_level(sides)
        left, right = (
            self._layout.whole(self._layout.by_columns(side, names, level, hint))
            for side, hint in zip(sides, ("left", "right"), strict=True)
        )
        word = "INTERSECT" if isinstance(tree, exp.Intersect) else "EXCEPT"
        word += "" if tree.args.get("distinct") else " ALL"
        text = f"({left.parts[0].text}) {word} ({right.parts[0].text})"
        return self._layout.relation(text, level, [*left.reads, *right.reads])

    def _types_of_both(self, sides: Sequence[Relation], names: Sequence[str]) -> list[str]:
        selects = [
            "SELECT "
            + ", ".join(f"CAST(NULL AS {t}) AS {quoted(n)}" for n, t in zip(names, side.types.values(), strict=True))
            for side in sides
        ]
        return list(self._layout.relation(" UNION ALL ".join(selects), 0).types.values())

    def _one_below_the_other(self, sides: Sequence[Relation]) -> Relation:
        one, other = sides
        if one.level != other.level:
            level = self._layout.next_level(sides)
            one, other = (self._layout.by_columns(side, list(side.types), level, "rows") for side in sides)
        reads = tuple(dict.fromkeys([*one.reads, *other.reads]))
        return Relation(one.level, (*one.parts, *other.parts), one.types, reads, one.gathered)

    def _ordered(self, rows: Relation, tree: Tree) -> Relation:
        """ORDER BY and LIMIT of a set operation, over its columns."""
        order = tree.args.get("order")
        known = {name.lower(): name for name in rows.types}
        terms = []
        for term in order.expressions if order is not None else ():
            inner = term.this.unnest()
            if not isinstance(inner, exp.Column) or inner.name.lower() not in known:
                raise Indivisible("an ORDER BY of more than columns under a set operation")
            terms.append(Term(known[inner.name.lower()], term))
        return Ordering(self._layout).ordered(rows, list(rows.types), terms, tree, "rows")

    def _with_now(self, tree: Tree) -> Tree:
        """The query with one and the same now for all tasks."""
        texts = list(dict.fromkeys(text_of(node) for node in tree.walk() if _is_now(node)))
        if not texts:
            return tree
        values = self._catalog.values([f"row({typeof}, {value})" for typeof, value in map(_typed, texts)])
        found = dict(zip(texts, values, strict=True))

        def fixed(node: Tree) -> Tree:
            if not _is_now(node):
                return node
            kind, value = found[text_of(node)]
            return exp.cast(exp.Literal.string(value), exp.DataType.build(kind, dialect=DIALECT))

        return tree.transform(fixed)


class _Once:
    """A CTE, divided when it is first asked for."""

    def __init__(self, queries: Queries, tree: Tree, defined: Defined) -> None:
        self._queries, self._tree, self._defined = queries, tree, defined
        self._found: Relation | None = None

    def __call__(self) -> Relation:
        if self._found is None:
            self._found = self._queries._rows(self._tree, self._defined)
        return self._found


class _Tables:
    """What a block's FROM may name."""

    def __init__(self, queries: Queries, defined: Defined) -> None:
        self._queries, self._defined = queries, defined

    def source(self, tree: Tree, used: set[str]) -> Relation:
        """See ``blocks.Tables``."""
        return self._queries.source(tree, used, self._defined)


def _is_now(node: Tree) -> bool:
    named = isinstance(node, exp.Anonymous) and node.name.lower() in _NOW_NAMES
    return named or isinstance(node, _NOW)


def _typed(text: str) -> tuple[str, str]:
    return f"typeof({text})", f"CAST({text} AS VARCHAR)"


def _is_order(column: Tree) -> bool:
    return column.find_ancestor(exp.Order) is not None


def _reads(tree: Tree, name: str) -> bool:
    return any(table.name.lower() == name.lower() for table in tree.find_all(exp.Table))


def _is_defined_inside(table: Tree, tree: Tree) -> bool:
    """Whether a table's name is defined by a WITH inside of a query."""
    node = table
    while node is not tree.parent and node is not None:
        with_ = node.args.get("with_") or node.args.get("with")
        if with_ is not None and any(cte.alias.lower() == table.name.lower() for cte in with_.expressions):
            return True
        node = node.parent
    return False
