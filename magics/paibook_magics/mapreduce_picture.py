"""The picture of a MapReduce plan: inputs, stages and outputs, in Mermaid's language."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

from paibook.plan import Plan

MOST = 4  # mappers or reducers drawn; fewer where there are several stages, whose arrows multiply
MOST_STAGES = 9
_REDUCE = re.compile(r"reduce([2-9]|[1-9]\d+)?")


def mapreduce_diagram(plan: Plan) -> str:
    """The plan's inputs, mappers, reducers and outputs, and the shuffles between them."""
    lines = ["flowchart LR", *_inputs(plan), *_outputs(plan)]
    if plan.options.get("sql"):
        return "\n".join([*lines, *_query(plan)])
    defined = plan.program.names()
    stages = _stages(plan, defined)
    most = max(2, MOST + 1 - max(1, stages))
    workers = min(plan.resources.workers or 2, most)
    reducers = min(plan.options.get("reducers") or workers, most)
    last, mappers = _mappers(plan, defined, workers)
    lines += mappers
    for stage in range(1, stages + 1):
        nodes = [f"r{r}" if stage == 1 else f"s{stage}r{r}" for r in range(reducers)]
        lines += [f"  {before} --> {node}" for before in last for node in nodes]
        lines += [f'  {node}["{_reducer(stage, defined)}"]' for node in nodes if stage < stages]
        last = nodes
    ends = f'["{_reducer(stages, defined)}"]' if stages else ""
    targets = ["output", *(f"out_{i}" for i in range(len(_named_outputs(plan))))]
    return "\n".join([*lines, *(f"  {node}{ends} --> {target}" for target in targets for node in last)])


def query_diagram(plan: Plan, flows: Sequence[tuple[str, str, str]]) -> str:
    """A query's plan: its inputs, the functions that it becomes, the relations between them, and its output.

    Args:
        plan: Of a cell with ``--sql``.
        flows: The functions that make each relation, its name, and the function that reads it, or none for the result.
    """
    lines = ["flowchart LR", *_inputs(plan), *_outputs(plan)]
    makers = {maker for maker, _, _ in flows}
    for node, name, _text in _input_nodes(plan):
        if f"map_{name}" in makers:
            lines.append(f'  {node} --> map_{name}["map_{name}"]')
        if f"all_{name}" in makers:
            lines.append(f'  {node} --> all_{name}["{name}, for every task"]')
    arrows = [(maker, f" -- {name}" if name else "", reader or "output") for maker, name, reader in flows]
    return "\n".join([*lines, *(f"  {maker}{label} --> {reader}" for maker, label, reader in arrows)])


def input_text(entry: str | Mapping[str, Any]) -> str:
    """An input as it is written on the line: ``users=users.csv``, ``docs``, ``run:ID``."""
    if isinstance(entry, str):
        return entry
    value = f"run:{entry['run']}" if "run" in entry else str(entry.get("path", entry.get("variable")))
    name = entry.get("name")
    return value if name in (None, value) else f"{name}={value}"


def escaped(text: Any) -> str:
    """Text for a label, cut where it is long."""
    # Quotes end a Mermaid label, and angle brackets would be read as HTML.
    shown = str(text) if len(str(text)) <= 40 else str(text)[:39] + "…"
    return shown.replace('"', "'").replace("<", "#lt;").replace(">", "#gt;")


def _inputs(plan: Plan) -> list[str]:
    return [f'  {node}[("{escaped(text)}")]' for node, _name, text in _input_nodes(plan)]


def _input_nodes(plan: Plan) -> list[tuple[str, str, str]]:
    """The inputs as nodes: id, name (empty: has none) and text; those without a name are one node."""
    entries = plan.options.get("inputs", [])
    plain = [input_text(entry) for entry in entries if not _name(entry)]
    nodes = [("input", "", ", ".join(plain))] if plain or not entries else []
    named: dict[str, list[str]] = {}
    for entry in entries:
        if _name(entry):
            named.setdefault(_name(entry), []).append(input_text(entry))
    return nodes + [(f"in_{i}", name, ", ".join(texts)) for i, (name, texts) in enumerate(named.items())]


def _name(entry: Any) -> str:
    return str(entry.get("name") or "") if isinstance(entry, Mapping) else ""


def _outputs(plan: Plan) -> list[str]:
    named = [f"{name}={output['target']}" for name, output in _named_outputs(plan).items()]
    return [
        f'  output[("{escaped(plan.options.get("out") or "result")}")]',
        *(f'  out_{i}[("{escaped(text)}")]' for i, text in enumerate(named)),
    ]


def _named_outputs(plan: Plan) -> Mapping[str, Any]:
    return plan.options.get("outputs") or {}


def _query(plan: Plan) -> list[str]:
    first = next((line.strip() for line in plan.program.source.splitlines() if line.strip()), "")
    arrows = [f"  {node} --> query" for node, _name, _text in _input_nodes(plan)]
    return [f'  query["{escaped(first)}"]', *arrows, "  query --> output"]


def _stages(plan: Plan, defined: set[str]) -> int:
    """How many shuffles there are; none where the cell says ``reduce = None``."""
    if "reduce" in defined and "reduce" not in plan.program.functions() and _is_map_only(plan):
        return 0
    numbers = [int(match[1] or 1) for name in defined if (match := _REDUCE.fullmatch(name))]
    return min(max(numbers, default=1), MOST_STAGES)


def _is_map_only(plan: Plan) -> bool:
    assigned = [node for node in plan.program.tree().body if isinstance(node, ast.Assign)]
    nothing = [node for node in assigned if isinstance(node.value, ast.Constant) and node.value.value is None]
    return any(isinstance(target, ast.Name) and target.id == "reduce" for node in nothing for target in node.targets)


def _mappers(plan: Plan, defined: set[str], workers: int) -> tuple[list[str], list[str]]:
    """Names of the mappers, and their lines: each input has some of its own, at least one."""
    nodes = _input_nodes(plan)
    share = max(1, workers // len(nodes))
    names: list[str] = []
    lines = []
    for node, name, _text in nodes:
        label = f"map_{name}" if f"map_{name}" in defined else "map"
        label += ", combine" if "combine" in defined else ""
        for _ in range(share):
            names.append(f"m{len(names)}")
            lines.append(f'  {node} --> {names[-1]}["{escaped(label)}"]')
    return names, lines


def _reducer(stage: int, defined: set[str]) -> str:
    name = "reduce" if stage == 1 else f"reduce{stage}"
    following = f"map{stage + 1}"
    return f"{name}, {following}" if following in defined else name
