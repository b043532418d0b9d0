"""DuckDB's own syntax tree of a query, read and written as JSON: no SQL is parsed here by hand."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from paibook.errors import ProgramError

Node = dict[str, Any]
_PLACES = ("query_location", "query_location_length", "alias")
# Types of DuckDB's that differ and yet compare equal (1, 1.0, a date and its midnight) must meet in one partition.
_EQUAL_ALIKE = (
    "hash(coalesce(CAST(TRY_CAST(CAST(__x AS VARCHAR) AS DOUBLE) + 0.0 AS VARCHAR),"
    " CAST(TRY_CAST(CAST(__x AS VARCHAR) AS TIMESTAMP) AS VARCHAR), CAST(__x AS VARCHAR)))"
)


def duckdb() -> Any:
    """The library, imported when first needed; raises ProgramError with the way to install it."""
    try:
        import duckdb as library
    except ImportError as error:
        raise ProgramError("--sql needs DuckDB: install with `pip install 'paibook[sql]'`") from error
    return library


def connect() -> Any:
    """A fresh in-memory database that reaches neither files nor the network."""
    connection = duckdb().connect(":memory:")
    for name in ("autoinstall_known_extensions", "autoload_known_extensions", "enable_external_access"):
        connection.execute(f"SET {name} = false")
    return connection


@functools.cache
def _parser() -> Any:
    return connect()


@functools.cache
def aggregates() -> frozenset[str]:
    """Names of DuckDB's aggregate functions."""
    rows = _parser().execute("SELECT function_name FROM duckdb_functions() WHERE function_type = 'aggregate'")
    return frozenset(row[0] for row in rows.fetchall())


def parse(query: str, filename: str = "cell") -> Node:
    """The tree of the one SELECT in `query`; raises ProgramError with the line of a syntax error."""
    text = _parser().execute("SELECT json_serialize_sql(CAST(? AS VARCHAR))", [query]).fetchone()[0]
    tree = json.loads(text)
    if tree["error"]:
        at = line_of(query, tree.get("position"))
        if "Only SELECT" in tree["error_message"]:
            raise ProgramError(f"{filename}: --sql takes one SELECT query; other statements cannot be distributed")
        raise ProgramError(f"{filename}{at}: {tree['error_message']}")
    if len(tree["statements"]) != 1:
        raise ProgramError(f"{filename}: --sql takes one query, the cell has {len(tree['statements'])}: use two cells")
    node: Node = tree["statements"][0]["node"]
    return node


def line_of(query: str, position: Any) -> str:
    """``", line N"`` of a byte position in the query, or nothing where DuckDB gives none."""
    if position is None or not 0 <= int(position) <= len(query.encode()):
        return ""
    return f", line {query.encode()[: int(position)].count(10) + 1}"


def render(node: Node) -> str:
    """SQL text of a query's tree."""
    tree = json.dumps({"error": False, "statements": [{"node": node}]})
    return str(_parser().execute("SELECT json_deserialize_sql(CAST(? AS JSON))", [tree]).fetchone()[0])


def expression(sql: str, **parts: Node) -> Node:
    """The tree of an expression, with the columns named in `parts` replaced by those trees."""
    node: Node = parse(f"SELECT {sql}")["select_list"][0]
    return substitute(node, lambda part: parts.get(column(part) or ""))


def hashed(terms: list[Node], alike: bool = False) -> Node:
    """The shuffle key of `terms`, aliased ``__key``: a uint64, never null; `alike`: equal across types."""
    if alike:
        terms = [expression(_EQUAL_ALIKE, __x=term) for term in terms]
    names = {f"__x{i}": plain(term) for i, term in enumerate(terms)}
    return aliased(expression(f"hash({', '.join(names)})" if names else "CAST(0 AS UBIGINT)", **names), "__key")


def matching(names: set[str]) -> Node:
    """The columns among `names` that the table has, whatever their case."""
    pattern = "|".join(sorted(re.escape(name) for name in names)).replace("'", "''")
    return expression(f"COLUMNS('(?i)^({pattern})$')")


def aliased(node: Node, name: str) -> Node:
    return {**node, "alias": name}


def plain(node: Node) -> Node:
    """The expression without its alias."""
    return {**node, "alias": ""}


def column(node: Any) -> str | None:
    """The column's own name in lower case if the node is a reference, else None."""
    if isinstance(node, dict) and node.get("class") == "COLUMN_REF":
        return str(node["column_names"][-1]).lower()
    return None


def substitute(node: Any, replace: Callable[[Node], Node | None]) -> Any:
    """The tree with every (outermost) node for which `replace` answers replaced; aliases stay."""
    if isinstance(node, list):
        return [substitute(item, replace) for item in node]
    if not isinstance(node, dict):
        return node
    new = replace(node)
    if new is not None:
        return aliased(new, node.get("alias", "") or new.get("alias", ""))
    return {name: substitute(value, replace) for name, value in node.items()}


def walk(node: Any) -> Iterator[Node]:
    """Every dictionary in the tree, outermost first."""
    if isinstance(node, dict):
        yield node
    for item in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(item)


def same(node: Any) -> str:
    """A text equal for expressions that are the same but for place, alias and case of column names."""
    if isinstance(node, dict) and node.get("class") == "COLUMN_REF":
        return ".".join(str(name).lower() for name in node["column_names"])
    if isinstance(node, dict):
        return json.dumps({name: same(value) for name, value in node.items() if name not in _PLACES}, sort_keys=True)
    return json.dumps([same(item) for item in node]) if isinstance(node, list) else str(node)


def title(node: Node) -> str:
    """The name DuckDB gives the column of an expression in a select list."""
    if node.get("alias"):
        return str(node["alias"])
    if node.get("class") == "COLUMN_REF":
        return str(node["column_names"][-1])
    if node.get("type") == "FUNCTION" and node.get("function_name") == "count_star":
        return "count_star()"
    return render({**parse("SELECT 1"), "select_list": [plain(node)]}).removeprefix("SELECT ")
