"""A plan shown before it runs: its fields, and a picture of the processes and what flows between them."""

from __future__ import annotations

import json
from typing import Any

from paibook.plan import Plan


def plan_bundle(plan: Plan) -> dict[str, Any]:
    """A plan as a MIME bundle: Markdown with a Mermaid diagram (JupyterLab draws it), text, and the plan's JSON."""
    rows = _rows(plan)
    cells = [(name, value.replace("|", "\\|")) for name, value in rows]
    table = "\n".join(f"| {name} | {value} |" for name, value in cells)
    markdown = f"| plan | |\n|---|---|\n{table}\n\n```mermaid\n{diagram(plan)}\n```"
    text = "\n".join(f"{name:<16} {value}" for name, value in rows)
    return {"text/markdown": markdown, "text/plain": text, "application/json": json.loads(plan.to_json())}


def diagram(plan: Plan) -> str:
    """The plan's processes and messages in Mermaid's language."""
    return {"mapreduce": _mapreduce, "allreduce": _allreduce, "ps": _ps}[plan.runtime](plan)


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
        ("GPUs per worker", str(asked.gpus_per_worker)),
        ("functions", ", ".join(plan.program.functions()) or "none"),
    ]
    rows += [(name, _text(value)) for name, value in plan.options.items() if value not in (None, False, "none")]
    rows += [("hyperparameters", ", ".join(f"{k}={v}" for k, v in plan.hyperparameters.items()))]
    rows += [("push", ", ".join(plan.push)), ("pull", ", ".join(plan.pull)), ("plan id", plan.digest())]
    return [(name, value) for name, value in rows if value not in ("", "0")]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value)
    return str(value["variable"]) if isinstance(value, dict) else str(value)


def _mapreduce(plan: Plan) -> str:
    workers = min(plan.resources.workers or 2, 4)
    reducers = min(plan.options.get("reducers") or workers, 4)
    inputs = _label(_text(plan.options.get("inputs", [])))
    out = _label(plan.options.get("out") or "result")
    lines = ["flowchart LR", f'  input[("{inputs}")]', f'  output[("{out}")]']
    for m in range(workers):
        lines.append(f'  input --> m{m}["map"]')
        lines += [f"  m{m} --> r{r}" for r in range(reducers)]
    return "\n".join(lines + [f'  r{r}["reduce"] --> output' for r in range(reducers)])


def _allreduce(plan: Plan) -> str:
    size = min(plan.resources.workers or 2, 8)
    lines = ["flowchart LR"] + [f'  r{rank}(["rank {rank}"])' for rank in range(size)]
    return "\n".join(lines + [f"  r{rank} <--> r{(rank + 1) % size}" for rank in range(size if size > 2 else size - 1)])


def _ps(plan: Plan) -> str:
    workers, servers = min(plan.resources.workers or 2, 6), min(plan.resources.servers or 1, 4)
    lines = [
        "flowchart TB",
        f'  c{{{{"coordinator: {_label(plan.options.get("until") or "until train() returns")}"}}}}',
    ]
    lines += [f'  s{s}[("server {s}")]' for s in range(servers)]
    lines += [f'  w{w}(["worker {w}"])' for w in range(workers)]
    lines += [
        f"  w{w} <-->|push, pull| s{s}" if (w, s) == (0, 0) else f"  w{w} <--> s{s}"
        for w in range(workers)
        for s in range(servers)
    ]
    return "\n".join([*lines, "  c -.-> s0"])


def _label(text: Any) -> str:
    # Quotes end a Mermaid label, and angle brackets would be read as HTML.
    shown = str(text) if len(str(text)) <= 40 else str(text)[:39] + "…"
    return shown.replace('"', "'").replace("<", "#lt;").replace(">", "#gt;")
