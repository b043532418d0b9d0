"""From a cell to a plan."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from itertools import takewhile
from typing import Any

from paibook.errors import PlanError
from paibook.hyperparameters import HyperParameters
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook_magics.options import parse_pai_cluster, parse_targets, parser

RUNTIME_OF = {"pai_mapreduce": "mapreduce", "pai_allreduce": "allreduce", "pai_ps": "ps"}


def plan_cell(
    magic: str,
    line: str,
    body: str,
    namespace: Mapping[str, Any],
    cluster: str,
    cell_name: str = "<cell>",
    transform: Callable[[str], str] = lambda source: source,
) -> tuple[Plan, argparse.Namespace]:
    """Read a ``%%pai_*`` cell.

    Args:
        magic: Such as ``"pai_ps"``.
        line, body: The magic's line and the cell below it.
        namespace: The notebook's variables, to tell ``-i docs`` from a file name.
        cluster: Reference of the session's cluster, used unless the line names another.
        cell_name: What tracebacks call the cell.
        transform: Turns IPython syntax into Python, line for line.

    Returns:
        The plan, and the options that concern only the notebook (blocking, display).

    Raises:
        PlanError: A bad line.
    """
    options = parser(magic).parse_line(line)
    asked = {"workers": options.workers, "servers": getattr(options, "servers", 0), "gpus": options.gpus}
    if options.cluster is not None and options.cluster.lstrip().startswith("{"):
        asked |= parse_pai_cluster(options.cluster)
    elif options.cluster is not None:
        cluster = options.cluster
    program = Program(_python(body, transform), cell_name)
    plan = Plan(
        runtime=RUNTIME_OF[magic],
        program=program,
        resources=Resources(asked["workers"], asked["servers"], asked["gpus"]),
        cluster=cluster,
        name=options.name,
        options=_OPTIONS[magic](options, namespace),
        hyperparameters=HyperParameters.from_pairs(options.hp).values(),
        push=options.push,
        pull=options.pull,
        targets=parse_targets(options.targets, asked["workers"]),
        timeout=options.timeout,
    )
    return plan, options


def _python(body: str, transform: Callable[[str], str]) -> str:
    # The magic's own line stays as a blank first line, so that tracebacks count as the notebook does. IPython drops
    # leading blank lines, so they are put back.
    lines = body.splitlines(keepends=True)
    blank = len(list(takewhile(str.isspace, lines)))
    return "\n" * (1 + blank) + transform("".join(lines[blank:]))


def input_variables(plan: Plan) -> tuple[str, ...]:
    """Names of notebook variables a plan reads as inputs."""
    return tuple(entry["variable"] for entry in plan.options.get("inputs", ()) if isinstance(entry, dict))


def is_path(text: str) -> bool:
    """Whether ``-o`` names a file rather than a variable."""
    return not text.isidentifier()


def _mapreduce(options: argparse.Namespace, namespace: Mapping[str, Any]) -> dict[str, Any]:
    if not options.input:
        raise PlanError("%%pai_mapreduce needs an input: -i FILES, or -i NAME of a notebook variable")
    out_kind = "none" if options.out is None else "path" if is_path(options.out) else "variable"
    return {
        "inputs": [_input(text, namespace) for text in options.input],
        "format": options.format,
        "out": options.out,
        "out_kind": out_kind,
        "as": options.kind,
        "reducers": options.reducers,
        "overwrite": options.overwrite,
    }


def _input(text: str, namespace: Mapping[str, Any]) -> Any:
    if text.isidentifier() and text in namespace:
        return {"variable": text}
    if re.fullmatch(r"[^\W\d]\w*", text) and not _exists(text):
        raise PlanError(f"-i {text}: the notebook has no variable {text!r}, and there is no file of that name")
    return text


def _exists(text: str) -> bool:
    from pathlib import Path

    return Path(text).exists()


def _allreduce(options: argparse.Namespace, namespace: Mapping[str, Any]) -> dict[str, Any]:
    _need_variable(options)
    return {"backend": options.backend}


def _ps(options: argparse.Namespace, namespace: Mapping[str, Any]) -> dict[str, Any]:
    _need_variable(options)
    if options.staleness is not None and options.consistency != "ssp":
        raise PlanError(f"--staleness goes with --consistency ssp; this cell says {options.consistency}")
    staleness = options.staleness if options.staleness is not None else 1
    return {"consistency": options.consistency, "staleness": staleness, "until": options.until}


def _need_variable(options: argparse.Namespace) -> None:
    if options.out is not None and is_path(options.out):
        raise PlanError(f"-o {options.out}: the name of a notebook variable is expected here")


_OPTIONS: dict[str, Callable[[argparse.Namespace, Mapping[str, Any]], dict[str, Any]]] = {
    "pai_mapreduce": _mapreduce,
    "pai_allreduce": _allreduce,
    "pai_ps": _ps,
}
