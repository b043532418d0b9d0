"""Where an attempt goes on after one that ended in the middle: a decision about cells, without any kernel."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Sequence
from dataclasses import dataclass

from paibook.jobs.notebook import names_in

DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
RANKS = ("%%pai_allreduce", "%%pai_ps")


@dataclass(frozen=True)
class Resumption:
    """How to go on.

    Attributes:
        first: Index of the first cell that runs with its outputs.
        replay: Finished cells before it that only define things, run again first.
        why: Why it starts over, or empty.
    """

    first: int
    replay: tuple[int, ...] = ()
    why: str = ""


def resumption(sources: Sequence[str], finished: int, saved: set[str] | None) -> Resumption:
    """Go on at the first unfinished cell, where all that the rest mentions is there; else from the beginning.

    Args:
        sources: Of every cell; empty for cells that hold no code.
        finished: How many cells, from the first, had ended.
        saved: Names in the checkpoint, or None without one.
    """
    if not finished:
        return Resumption(0)
    if saved is None:
        return Resumption(0, why="no variables were kept")
    before, rest = sources[:finished], sources[finished:]
    if any(s.startswith(RANKS) for s in before) and any(s.startswith(RANKS) for s in rest):
        return Resumption(0, why="variables on ranks are not kept, and the cells that remain may use them")
    replay = tuple(index for index, source in enumerate(before) if source.strip() and _only_defines(source))
    known = saved | {name for index in replay for name in _bound(before[index])}
    made_before = {name for source in before for name in _bound(source)}
    mentioned = {name for source in rest for name in names_in(source)}
    for index in replay:
        mentioned |= names_in(before[index])
    missing = sorted((mentioned & made_before) - known - set(dir(builtins)))
    if missing:
        return Resumption(0, why=f"these variables could not be kept: {', '.join(missing)}")
    return Resumption(finished, replay)


def _only_defines(source: str) -> bool:
    """Whether a cell has nothing but imports, functions, classes and line magics that load or set something."""
    lines = source.splitlines()
    if source.startswith("%%"):
        return False
    python = "\n".join(line for line in lines if not line.startswith(("%load_ext", "%matplotlib", "%config")))
    try:
        return all(isinstance(statement, DEFINITIONS) for statement in ast.parse(python).body)
    except SyntaxError:
        return False


def _bound(source: str) -> set[str]:
    """Names that a cell binds; of a cell that is no Python, every name."""
    try:
        tree = ast.parse("\n".join(line for line in source.splitlines() if not line.startswith("%")))
    except SyntaxError:
        return names_in(source)
    if source.startswith("%%"):
        return names_in(source)
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return found
