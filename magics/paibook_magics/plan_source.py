"""A ``%%pai_*`` cell as calls of the Python API: ``Plan``, ``Program``, ``Session.run``, and what keeps the results."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Collection, Mapping
from typing import Any

from IPython.core.inputtransformer2 import TransformerManager

from paibook.errors import PaibookError, PlanError
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook_magics.line_expansion import joined, pieces
from paibook_magics.mapreduce_planning import input_variables, output_variables
from paibook_magics.planning import plan_cell
from paibook_magics.results import MAIN

# Stands on a line for a value that is known when the script runs. As a whole number it passes wherever one is asked
# for, a time included, and it is found again in the plan.
_FIRST_MARK = 9_182_736_450
_SESSION = "the session's own"


def plan_source(magic: str, line: str, body: str, cell_name: str, names: Collection[str]) -> tuple[str, frozenset[str]]:
    """The calls, and the names that they bind.

    Raises:
        PlanError: A bad line.
        SyntaxError: The cell is not Python.
    """
    marks: dict[int, str] = {}
    marked = _marked(line, names, marks)
    transform = TransformerManager().transform_cell
    try:
        plan, options = plan_cell(magic, marked, body, dict.fromkeys(names), _SESSION, cell_name, transform)
    except PaibookError as error:
        raise PlanError(_unmarked(str(error), marks)) from error
    if not plan.options.get("sql"):
        plan.program.compile()
    text = f"_plan = {_plan(plan, marks)}\n"
    if options.dry_run:
        return text + "_session.check(_plan)\n", frozenset()
    variables = ", ".join(f"{name!r}: {name}" for name in dict.fromkeys([*plan.push, *input_variables(plan)]))
    text += f"_run = _session.run(_plan, {{{variables}}}, on_event=_show)\n"
    if options.local:
        text += "_plan.program.execute(globals())\n"
    text += "_result = _run.result()\n"
    kept, bound = _kept(plan, options)
    # A cell with --noblock or --detach gives its run; here it has ended.
    if options.noblock or options.detach:
        kept += "_ = _run\n"
    if options.local:
        bound |= plan.program.names()
    return text + kept, bound


def _marked(line: str, names: Collection[str], marks: dict[int, str]) -> str:
    if re.search(r'\{\s*"', line):  # PAI's JSON has braces of its own
        return line
    made = ""
    for text, is_expression in pieces(line, names):
        if is_expression:
            mark = _FIRST_MARK + len(marks)
            marks[mark] = text
            text = str(mark)
        made += text
    return made


def _unmarked(message: str, marks: Mapping[int, str]) -> str:
    for mark, expression in marks.items():
        message = message.replace(str(mark), f"{{{expression}}}")
    return message


def _plan(plan: Plan, marks: Mapping[int, str]) -> str:
    cluster = "_session.cluster.reference" if plan.cluster == _SESSION else _source(plan.cluster, marks)
    lines = [repr(plan.runtime), _program(plan.program), f"cluster={cluster}"]
    if plan.resources != Resources():
        values = dataclasses.asdict(plan.resources)
        default = dataclasses.asdict(Resources())
        changed = (f"{name}={_source(value, marks)}" for name, value in values.items() if value != default[name])
        lines.append(f"resources=Resources({', '.join(changed)})")
    defaults = {field.name: field.default for field in dataclasses.fields(Plan)}
    for name in ("name", "push", "pull", "targets", "timeout"):
        value = getattr(plan, name)
        if value != defaults[name]:
            lines.append(f"{name}={_source(value, marks)}")
    lines.append(f"options={_source(dict(plan.options), marks)}")
    if plan.hyperparameters:
        lines.append(f"hyperparameters={_source(dict(plan.hyperparameters), marks, bare=True)}")
    return "Plan(\n" + "".join(f"    {entry},\n" for entry in lines) + ")"


def _program(program: Program) -> str:
    source = program.source
    prefix = "r" if "\\" in source else ""
    for quotes in ('"""', "'''"):
        if quotes not in source and not source.endswith((quotes[0], "\\")) and "\r" not in source:
            return f"Program({prefix}{quotes}{source}{quotes}, {program.filename!r})"
    return f"Program({source!r}, {program.filename!r})"


def _source(value: Any, marks: Mapping[int, str], bare: bool = False) -> str:
    """A value as Python; ``bare`` leaves what is filled in as it is, whatever its type."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_source(item, marks, bare)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        items = ", ".join(_source(item, marks, bare) for item in value)
        if isinstance(value, list):
            return f"[{items}]"
        return f"({items},)" if len(value) == 1 else f"({items})"
    if isinstance(value, int | float) and not isinstance(value, bool) and value in marks:
        expression = marks[int(value)]
        return expression if bare else f"{type(value).__name__}({expression})"
    if isinstance(value, str):
        return _text(value, marks)
    return repr(value)


def _text(value: str, marks: Mapping[int, str]) -> str:
    found: list[tuple[str, bool]] = []
    place = 0
    for match in re.finditer(r"\d{10}", value):
        if int(match[0]) in marks:
            found += [(value[place : match.start()], False), (marks[int(match[0])], True)]
            place = match.end()
    return joined([*found, (value[place:], False)])


def _kept(plan: Plan, options: argparse.Namespace) -> tuple[str, frozenset[str]]:
    """What ``paibook_magics.results.keep`` does, and the names that it binds."""
    text = "globals().update(_result.pulled)\n" if plan.pull else ""
    bound = set(plan.pull) | {name.partition("@")[0] for name in plan.pull}
    values = {options.out: "_result"} if plan.runtime == "ps" and options.out else {}
    if plan.runtime == "allreduce" and options.out:
        values = {options.out: "[_result.values[rank] for rank in sorted(_result.values)]"}
    if plan.runtime == "mapreduce":
        named = output_variables(plan)
        values = {variable: f"_result[{name!r}]" for name, variable in named.items()}
        if plan.options.get("out_kind") == "variable":
            values[plan.options["out"]] = f"_result[{MAIN!r}]" if plan.options.get("outputs") else "_result"
    text += "".join(f"{variable} = {source}\n" for variable, source in values.items())
    return text, frozenset({*bound, *values})
