"""The typed parameters of a notebook, from its ``parameters`` cell."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paibook.errors import PlanError
from paibook.jobs.secret_references import is_reference
from paibook.jobs.suggestions import nearest

# Names of annotations, and what JSON value each accepts. An int is a float, a bool is no int.
TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float, int),
    "str": (str,),
    "bool": (bool,),
    "list": (list,),
    "tuple": (list,),
    "dict": (dict,),
}


@dataclass(frozen=True)
class Parameter:
    """A name that a run may set.

    Attributes:
        name: Of the variable.
        type: Of ``TYPES``, or empty where neither an annotation nor the default tells it.
        default: Its source text.
    """

    name: str
    type: str
    default: str


def declared(text: str) -> dict[str, Parameter]:
    """What a ``parameters`` cell assigns at its top level; empty where it does not parse."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return {}
    found: dict[str, Parameter] = {}
    for statement in tree.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            default = ast.unparse(statement.value) if statement.value else ""
            name = statement.target.id
            found[name] = Parameter(name, _annotated(statement.annotation), default)
        elif isinstance(statement, ast.Assign):
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    found[target.id] = Parameter(target.id, _inferred(statement.value), ast.unparse(statement.value))
    return found


def check_parameters(values: Mapping[str, Any], known: Mapping[str, Parameter], notebook: str) -> None:
    """Refuse what the notebook does not declare, or declares with another type.

    Raises:
        PlanError: Names the parameter, what was expected, and the nearest name.
    """
    if values and not known:
        raise PlanError(
            f"{notebook} declares no parameters, so {', '.join(values)} cannot be set; "
            "give the cell that assigns the defaults the tag `parameters`"
        )
    for name, value in values.items():
        if name not in known:
            raise PlanError(
                f"{notebook} has no parameter {name!r}{nearest(name, known)}; there are {', '.join(sorted(known))}"
            )
        expected = known[name].type
        if not expected or value is None or (is_reference(value) and expected == "str"):
            continue
        if not isinstance(value, TYPES[expected]) or (isinstance(value, bool) and expected != "bool"):
            raise PlanError(f"parameter {name} is {_article(expected)}; got {value!r}")


def parse_values(pairs: list[str], known: Mapping[str, Parameter] | None = None) -> dict[str, Any]:
    """Values from ``name=value`` words; a value is JSON where it parses as JSON, and text where the type is ``str``.

    Raises:
        PlanError: A word without ``=``.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator or not name.isidentifier():
            raise PlanError(f"a parameter is given as name=value, such as lr=0.1; got {pair!r}")
        values[name] = text if known and name in known and known[name].type == "str" else parse_value(text)
    return values


def parse_value(text: str) -> Any:
    """A value from the command line."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return {"True": True, "False": False, "None": None}.get(text, text)


def _annotated(node: ast.expr) -> str:
    base = node.value if isinstance(node, ast.Subscript) else node
    name = base.id if isinstance(base, ast.Name) else ""
    return name if name in TYPES else ""


def _inferred(node: ast.expr) -> str:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return ""
    name = type(value).__name__
    return name if name in TYPES else ""


def _article(name: str) -> str:
    return {"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false"}.get(
        name, f"a {name}"
    )
