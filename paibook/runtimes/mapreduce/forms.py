"""Forms: whether a function of the cell takes records, or whole tables and in which library's words.

Seen from the annotation of its first parameter, on the loaded function or, before anything runs, in the syntax tree.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal

Form = Literal["records", "arrow", "pandas", "polars"]

_TABLES: dict[str, Form] = {
    "pyarrow.Table": "arrow",
    "pyarrow.lib.Table": "arrow",
    "pandas.DataFrame": "pandas",
    "pandas.core.frame.DataFrame": "pandas",
    "polars.DataFrame": "polars",
    "polars.dataframe.DataFrame": "polars",
    "polars.dataframe.frame.DataFrame": "polars",
}
# What everybody calls them: for a text annotation whose import the cell keeps behind TYPE_CHECKING, or gets by --push.
_USUAL = {"pa": "pyarrow", "pd": "pandas", "pl": "polars"}


def form_of(function: Callable[..., Any], program_globals: Mapping[str, Any] | None = None) -> Form:
    """What a loaded function takes.

    Args:
        function: A function of the cell, decorated or not.
        program_globals: Where the names in text annotations are looked up; the function's own globals if None.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some builtins have no signature
        return "records"
    if not parameters or parameters[0].annotation is inspect.Parameter.empty:
        return "records"
    annotation = parameters[0].annotation
    if not isinstance(annotation, str):
        return _form_of_class(annotation)
    if program_globals is None:
        program_globals = getattr(inspect.unwrap(function), "__globals__", {})
    dotted = _dotted_text(annotation)
    if dotted is None:
        return "records"
    found = _looked_up(dotted, program_globals)
    return _form_of_name(dotted, {}) if found is None else _form_of_class(found)


def form_of_node(node: ast.FunctionDef | ast.AsyncFunctionDef, imports: Mapping[str, str]) -> Form:
    """What a function takes, from its syntax.

    Args:
        node: Its definition.
        imports: What the cell's names stand for, from ``imports_of``.
    """
    last = [node.args.kwarg] if node.args.kwarg is not None else []  # of reduce(**relations: pa.Table)
    parameters = [*node.args.posonlyargs, *node.args.args, *last]
    if not parameters or parameters[0].annotation is None:
        return "records"
    dotted = _dotted(parameters[0].annotation)
    return "records" if dotted is None else _form_of_name(dotted, imports)


def imports_of(tree: ast.Module) -> dict[str, str]:
    """What the names bound by a cell's imports stand for: ``import pandas as pd`` makes ``{"pd": "pandas"}``.

    Plain new names for them, such as ``Frame = pd.DataFrame``, count too; every other binding of such a name hides it.
    """
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split(".")[0]
                known[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            known.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target, dotted = statement.targets[0], _dotted(statement.value)
            if isinstance(target, ast.Name):
                known[target.id] = _resolved(dotted, known) if dotted else ""
        elif isinstance(statement, (ast.ClassDef, ast.FunctionDef)):
            known[statement.name] = ""
    return known


def _form_of_class(annotation: Any) -> Form:
    if not isinstance(annotation, type):
        return "records"
    for kind in annotation.__mro__:  # a subclass, such as a GeoDataFrame, is made by its own library only
        form = _TABLES.get(f"{kind.__module__}.{kind.__qualname__}")
        if form is not None:
            return form
    return "records"


def _form_of_name(dotted: str, names: Mapping[str, str]) -> Form:
    return _TABLES.get(_resolved(dotted, names), "records")


def _resolved(dotted: str, names: Mapping[str, str]) -> str:
    first, dot, rest = dotted.partition(".")
    return names.get(first, _USUAL.get(first, first)) + dot + rest


def _dotted(node: ast.expr) -> str | None:
    """``a.b.c`` as text; also where it stands in quotes."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return None if before is None else f"{before}.{node.attr}"
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _dotted_text(node.value)
    return None


def _dotted_text(text: str) -> str | None:
    try:
        return _dotted(ast.parse(text.strip(), mode="eval").body)
    except SyntaxError:
        return None


def _looked_up(dotted: str, names: Mapping[str, Any]) -> Any:
    first, *rest = dotted.split(".")
    found = names.get(first)
    for name in rest:
        found = getattr(found, name, None)
    return found
