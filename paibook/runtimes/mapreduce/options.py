"""The options of a MapReduce plan, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paibook.data.formats import check_format
from paibook.data.inputs import find_files
from paibook.data.sources import kind_of
from paibook.data.staging import check_target
from paibook.errors import DataError, PlanError
from paibook.runtimes.mapreduce.outline import MAGIC
from paibook.runtimes.mapreduce.steps import MAIN


@dataclass(frozen=True, slots=True)
class Input:
    """One input.

    Attributes:
        entry: A path, or a mapping of ``"path"``, ``"variable"`` or ``"run"`` to its value.
        name: The input's own name, or empty.
    """

    entry: Any
    name: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """Where an output goes: a path, or a variable of the notebook (``path`` is None)."""

    name: str
    path: str | None


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse options that cannot be meant.

    Raises:
        PlanError, DataError: Naming the option, what was given and what is expected.
    """
    check_format(options.get("format"))
    reducers = options.get("reducers")
    if reducers is not None and (isinstance(reducers, bool) or not isinstance(reducers, int) or reducers < 1):
        raise PlanError(
            f"--reducers must be a whole number, 1 or more; got {reducers!r}. "
            "To keep what map yields, write `reduce = None`"
        )
    if options.get("as", "list") not in ("list", "dataframe", None):
        raise PlanError(f"--as is list or dataframe; got {options['as']!r}")
    if options.get("sort") not in (None, "asc", "desc"):
        raise PlanError(f"--sort is asc or desc; got {options['sort']!r}")
    _check_max_bad(options.get("max_bad"))
    sample = options.get("sample")
    if sample is not None and not (isinstance(sample, (int, float)) and 0 < sample <= 1):
        raise PlanError(f"--sample is a share above 0 and up to 1, or 100%; got {sample!r}")
    inputs = inputs_of(options)
    for entry in inputs:
        kind, value = kind_of(entry.entry)
        if kind == "path":
            find_files(value)
    if options.get("out_kind") == "path" and not options.get("out"):
        raise PlanError("an output path is needed: -o PATH")
    resources_of(options)
    _check_targets(options)


def _check_max_bad(value: Any) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if value is not None and not whole and not (isinstance(value, float) and 0 <= value <= 1):
        raise PlanError(f"--max-bad is a number of records, or a share such as 1%; got {value!r}")


def _check_targets(options: Mapping[str, Any]) -> None:
    seen: dict[Path, str] = {}
    for target in targets_of(options):
        if target.path is None:
            continue
        path = check_target(target.path, bool(options.get("overwrite")))
        if path in seen:
            raise PlanError(f"two outputs would be written to {path}")
        seen[path] = target.name


def inputs_of(options: Mapping[str, Any]) -> list[Input]:
    """The inputs in the order they are given.

    Raises:
        PlanError: There is none, or one is neither a path nor a variable nor a run.
    """
    entries = options.get("inputs")
    if not entries:
        raise PlanError(f"{MAGIC} needs an input: -i PATH, a glob such as -i 'logs/*.txt', or a variable's name")
    return [_input(entry) for entry in entries]


def _input(entry: Any) -> Input:
    kind_of(entry)
    return Input(entry, (entry.get("name") or "") if isinstance(entry, Mapping) else "")


def targets_of(options: Mapping[str, Any]) -> list[Target]:
    """The outputs, the main one first."""
    main = Target(MAIN, options["out"] if options.get("out_kind") == "path" else None)
    named = options.get("outputs") or {}
    return [main, *(Target(name, to["target"] if to["kind"] == "path" else None) for name, to in named.items())]


def resources_of(options: Mapping[str, Any]) -> dict[str, Path]:
    """Files to be sent along, by name.

    Raises:
        DataError: One is not there.
        PlanError: Two of the same name.
    """
    found: dict[str, Path] = {}
    for text in options.get("resources") or ():
        path = Path(text).expanduser()
        if not path.is_file():
            raise DataError(f"--resource {text}: there is no such file")
        if path.name in found:
            raise PlanError(f"--resource: two files are called {path.name!r}")
        found[path.name] = path
    return found
