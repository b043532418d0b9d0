"""From a cell to a plan."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any

from paibook.errors import PlanError
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import WHOLE, Resources
from paibook_magics.hyperparameter_words import hyperparameters
from paibook_magics.mapreduce_planning import is_path, mapreduce_options
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
    hp: Sequence[str] | None = None,
) -> tuple[Plan, argparse.Namespace]:
    """Read a ``%%pai_*`` cell.

    Args:
        magic: Such as ``"pai_ps"``.
        line, body: The magic's line and the cell below it.
        namespace: The notebook's variables, to tell ``-i docs`` from a file name.
        cluster: Reference of the session's cluster, used unless the line names another.
        cell_name: What tracebacks call the cell.
        transform: Turns IPython syntax into Python, line for line.
        hp: Words of ``--hp`` that take the place of the line's own.

    Returns:
        The plan, and the options that concern only the notebook (blocking, display).

    Raises:
        PlanError: A bad line.
        SyntaxError: A cell with named inputs is not Python.
    """
    options = parser(magic).parse_line(line)
    asked = {"workers": options.workers, "servers": getattr(options, "servers", 0), "gpus": options.gpus}
    if getattr(options, "gpu_share", None) is not None:
        asked["gpu_share"] = options.gpu_share
    if options.cluster is not None and options.cluster.lstrip().startswith("{"):
        asked |= parse_pai_cluster(options.cluster)
    elif options.cluster is not None:
        cluster = options.cluster
    program = Program(_source(body, getattr(options, "sql", False), transform), cell_name)
    plan = Plan(
        runtime=RUNTIME_OF[magic],
        program=program,
        resources=_resources(asked, options),
        cluster=cluster,
        name=options.name,
        options=_options(magic, options, program, namespace),
        hyperparameters=hyperparameters(options.hp if hp is None else hp, namespace).values(),
        push=options.push,
        pull=options.pull,
        targets=parse_targets(options.targets, asked["workers"]),
        timeout=options.timeout,
        detach=options.detach,
    )
    return plan, options


def _resources(asked: Mapping[str, int], options: argparse.Namespace) -> Resources:
    workers, gpus, share = asked["workers"], asked["gpus"], asked.get("gpu_share")
    cards = getattr(options, "cards", ())
    if cards:
        gpus = gpus or 1
        workers = workers or len(cards) // gpus
        share = share or WHOLE // max(Counter(cards).values())
    elif share is not None:
        gpus = gpus or 1
    return Resources(
        workers,
        asked["servers"],
        gpus,
        getattr(options, "memory", None),
        getattr(options, "placement", "spread"),
        share or WHOLE,
        cards,
        getattr(options, "cpu_fallback", False),
    )


def _options(magic: str, options: argparse.Namespace, program: Program, namespace: Mapping[str, Any]) -> dict[str, Any]:
    if magic == "pai_mapreduce":
        return mapreduce_options(options, program, namespace)
    return {"pai_allreduce": _allreduce, "pai_ps": _ps}[magic](options)


def _python(body: str, transform: Callable[[str], str]) -> str:
    # The magic's own line stays as a blank first line, so that tracebacks count as the notebook does. IPython drops
    # leading blank lines, so they are put back.
    lines = body.splitlines(keepends=True)
    blank = len(list(takewhile(str.isspace, lines)))
    return "\n" * (1 + blank) + transform("".join(lines[blank:]))


def _source(body: str, sql: bool, transform: Callable[[str], str]) -> str:
    if sql:
        return "\n" + body
    return _python(body, transform)


def _allreduce(options: argparse.Namespace) -> dict[str, Any]:
    _need_variable(options)
    elastic = {"max_restarts": options.max_restarts, "min_workers": options.min_workers}
    # The variable is for whoever fetches the result of a detached run.
    return {"backend": options.backend, "check": options.check, **elastic, "out": options.out}


def _ps(options: argparse.Namespace) -> dict[str, Any]:
    _need_variable(options)
    if options.staleness is not None and options.consistency != "ssp":
        raise PlanError(f"--staleness goes with --consistency ssp; this cell says {options.consistency}")
    staleness = options.staleness if options.staleness is not None else 1
    return {
        "consistency": options.consistency,
        "staleness": staleness,
        "until": options.until,
        "replicas": options.replicas,
        "max_restarts": options.max_restarts,
        "checkpoint": options.checkpoint,
        "checkpoint_every": options.checkpoint_every,
        "nan": options.nan,
        "out": options.out,  # for whoever resumes the run, or fetches its result
    }


def _need_variable(options: argparse.Namespace) -> None:
    if options.out is not None and is_path(options.out):
        raise PlanError(f"-o {options.out}: the name of a notebook variable is expected here")
