"""A plan shown before it runs: its fields, and a picture of the processes and what flows between them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from paibook.plan import Plan
from paibook.resources import WHOLE, Resources
from paibook.runtimes.mapreduce.driver import sql
from paibook_magics.allreduce_planning import allreduce_diagram, allreduce_rows
from paibook_magics.mapreduce_picture import escaped, input_text, mapreduce_diagram, query_diagram
from paibook_magics.panel_style import STYLE
from paibook_magics.planned_drawing import planned_drawing
from paibook_magics.sizes import format_bytes

PLAN = "application/vnd.paibook.plan+json"  # as application/json JupyterLab would show it in place of all else


def plan_bundle(plan: Plan, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A plan as a MIME bundle: HTML with the picture of it, where there is one; Markdown with a Mermaid diagram
    (JupyterLab draws it), text, and the plan's JSON.

    Args:
        plan: Any.
        variables: The notebook's, if a query is to be shown as the program that it becomes, and any other plan with its
            picture, for which files are looked for; the plan was checked before.

    Raises:
        ProgramError, DataError: The query, or an input of it, is wrong.
    """
    query = None if variables is None or not plan.options.get("sql") else sql().shown(plan, variables)
    rows = _rows(plan)
    cells = [(name, value.replace("|", "\\|")) for name, value in rows]
    table = "\n".join(f"| {name} | {value} |" for name, value in cells)
    picture = diagram(plan) if query is None else query_diagram(plan, query.flows)
    markdown = f"| plan | |\n|---|---|\n{table}\n\n```mermaid\n{picture}\n```"
    text = "\n".join(f"{name:<16} {value}" for name, value in rows)
    if query is not None:
        notes = "".join(f"{note}\n\n" for note in sql().told(query))
        markdown += f"\n\n{notes}```python\n{query.program.source}```"
        text += f"\n\n{notes}{query.program.source}"
    bundle = {"text/markdown": markdown, "text/plain": text, PLAN: json.loads(plan.to_json())}
    if variables is not None and (found := planned_drawing(plan)):
        bundle["text/html"] = _html(rows, found)
    return bundle


def _html(rows: list[tuple[str, str]], drawing: str) -> str:
    """The plan's fields above its picture, drawn as the run itself will be; front ends prefer it to Markdown."""
    fields = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    table = f'<table class="pai-stages"><tbody>{fields}</tbody></table>'
    return f'{STYLE}<div class="pai-run">{table}</div>{drawing}'


def diagram(plan: Plan) -> str:
    """The plan's processes and messages in Mermaid's language."""
    return {"mapreduce": mapreduce_diagram, "allreduce": allreduce_diagram, "ps": _ps}[plan.runtime](plan)


class Shown:
    """A MIME bundle as the value of a cell."""

    def __init__(self, bundle: dict[str, Any]) -> None:
        self._bundle = bundle

    def _repr_mimebundle_(self, **_options: Any) -> dict[str, Any]:
        return self._bundle


def _rows(plan: Plan) -> list[tuple[str, str]]:
    asked = plan.resources
    rows = [
        ("model", plan.runtime),
        ("cluster", plan.cluster),
        ("workers", str(asked.workers or "as many as the cluster has")),
        ("servers", str(asked.servers)),
        ("GPUs per worker", _cards(asked)),
        ("memory", "" if asked.memory is None else f"{format_bytes(asked.memory)} per worker"),
        ("query", _in_one_line(plan.program.source))
        if plan.options.get("sql")
        else ("functions", ", ".join(plan.program.functions()) or "none"),
    ]
    rows += [(name, _text(name, value)) for name, value in plan.options.items() if _is_said(name, value)]
    rows += allreduce_rows(plan) if plan.runtime == "allreduce" else []
    rows += [("hyperparameters", ", ".join(f"{k}={v}" for k, v in plan.hyperparameters.items()))]
    rows += [("detached", "in a process of its own, which outlives the notebook" if plan.detach else "")]
    rows += [("push", ", ".join(plan.push)), ("pull", ", ".join(plan.pull)), ("plan id", plan.digest())]
    return [(name, value) for name, value in rows if value not in ("", "0")]


def _cards(asked: Resources) -> str:
    parts = [str(asked.gpus_per_worker)]
    if asked.gpu_share < WHOLE:
        parts.append(f"{asked.gpu_share}% of each")
    if asked.cards:
        parts.append(f"cards {', '.join(asked.cards)}")
    if asked.gpus_per_worker and asked.cpu_fallback:
        parts.append("the CPU where there is none")
    return ", ".join(parts)


def _is_said(name: str, value: Any) -> bool:
    if name == "backups":  # the one that is on unless the cell says no
        return value is False
    return value not in (None, "none") and value is not False


def _text(name: str, value: Any) -> str:
    if name == "inputs":
        return ", ".join(map(input_text, value))
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):  # the named outputs
        return ", ".join(f"{key}={output['target']}" for key, output in value.items())
    if isinstance(value, float) and name in ("max_bad", "sample"):
        return f"{100 * value:g}%"
    if name == "max_bad":
        return f"{value:,} records"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _in_one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:199] + "…"


def _ps(plan: Plan) -> str:
    workers, servers = min(plan.resources.workers or 2, 6), min(plan.resources.servers or 1, 4)
    lines = [
        "flowchart TB",
        f'  c{{{{"coordinator: {escaped(plan.options.get("until") or "until train() returns")}"}}}}',
    ]
    lines += [f'  s{s}[("server {s}")]' for s in range(servers)]
    lines += [f'  w{w}(["worker {w}"])' for w in range(workers)]
    lines += [
        f"  w{w} <-->|push, pull| s{s}" if (w, s) == (0, 0) else f"  w{w} <--> s{s}"
        for w in range(workers)
        for s in range(servers)
    ]
    return "\n".join([*lines, "  c -.-> s0"])
