"""Cells: an algorithm's program as it stands in its file, and how it is run from Python."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paibook import session as sessions
from paibook.data.frames import frame
from paibook.errors import PlanError
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook.session import Session

_PROGRAMS = Path(__file__).parent / "programs"


def names() -> list[str]:
    """The programs there are, such as ``"tf_idf"``."""
    return sorted(path.stem for path in _PROGRAMS.glob("*.py"))


def source(name: str) -> str:
    """The cell of an algorithm, to read, to change and to run below ``%%pai_mapreduce``.

    Raises:
        PlanError: There is none of that name; the nearest one is named.
    """
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise PlanError(f"there is no algorithm {name!r}{hint} There are: {', '.join(names())}")
    return (_PROGRAMS / f"{name}.py").read_text(encoding="utf-8")


def run(
    name: str,
    inputs: Any,
    hyperparameters: Mapping[str, Any],
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    session: Session | None = None,
    workers: int = 0,
    memory: int | None = None,
    **options: Any,
) -> Any:
    """Run an algorithm's program and wait for it; an interrupt stops it.

    Args:
        name: Of the program.
        inputs: One input, or a dict of named ones. An input is a path (text; a glob or URL too), a list of them as
            ``Path`` objects, or the records themselves: a list, a DataFrame, anything that can be iterated.
        hyperparameters: The program's ``hp``.
        out: A path to write instead of returning the records.
        overwrite: Whether that path may be replaced.
        session: Whose cluster does the work; the notebook's by default.
        workers: Workers; as many as the cluster has where 0.
        memory: Bytes each of them may use.
        options: More of ``%%pai_mapreduce``'s: ``format``, ``reducers``, ``sample``, ``max_bad``, ...

    Returns:
        A DataFrame of the records (a list where they are no dicts), or the ``Dataset`` written.

    Raises:
        PlanError, DataError, RunError, UserCodeError: As the cell does.
    """
    used = session or sessions.current()
    entries, variables = _inputs(inputs)
    given = {option: value for option, value in options.items() if value is not None}
    target = {"out": str(out), "out_kind": "path", "overwrite": overwrite} if out is not None else {"out_kind": "none"}
    plan = Plan(
        runtime="mapreduce",
        program=Program(source(name), f"<pai.algorithms.{name}>"),
        resources=Resources(workers=workers, memory=memory),
        cluster=used.cluster.reference,
        name=name,
        options={"inputs": entries, **given, **target},
        hyperparameters=hyperparameters,
    )
    started = used.run(plan, variables)
    try:
        result = started.result()
    except KeyboardInterrupt:
        started.cancel()
        raise
    return _framed(result) if isinstance(result, list) else result


def count(inputs: Any, **options: Any) -> int:
    """How many records an input has; ``options`` are those of ``run``."""
    if is_path(inputs) or not hasattr(inputs, "__len__"):
        found = run("count", inputs, {}, **options)
        return int(found["records"].iloc[0]) if len(found) else 0
    return len(inputs)


def is_path(value: Any) -> bool:
    """Whether an input is read from files: text, a ``Path``, or a list of ``Path`` objects."""
    return isinstance(value, (str, Path)) or _is_paths(value)


def _is_paths(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Path) for item in value)


def _inputs(inputs: Any) -> tuple[list[Any], dict[str, Any]]:
    """The plan's inputs, and the variables they name."""
    if not isinstance(inputs, Mapping):
        return _entries(inputs, "records")
    entries: list[Any] = []
    variables: dict[str, Any] = {}
    for name, value in inputs.items():
        found, held = _entries(value, name)
        entries += [{**({"path": entry} if isinstance(entry, str) else entry), "name": name} for entry in found]
        variables |= held
    return entries, variables


def _entries(value: Any, name: str) -> tuple[list[Any], dict[str, Any]]:
    if _is_paths(value):
        return [str(path) for path in value], {}
    if is_path(value):
        return [str(value)], {}
    return [{"variable": name}], {name: value}


def _framed(records: list[Any]) -> Any:
    return frame(records) if all(isinstance(record, dict) for record in records) else records
