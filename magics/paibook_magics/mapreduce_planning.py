"""From the line of a ``%%pai_mapreduce`` cell to the plan's options: inputs, outputs, and what goes with what."""

from __future__ import annotations

import argparse
import glob
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paibook.errors import PlanError
from paibook.plan import Plan
from paibook.program import Program

RUN = "run:"


def mapreduce_options(options: argparse.Namespace, program: Program, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a plan, JSON-able.

    Args:
        options: The line, parsed.
        program: The cell; its ``map_NAME`` functions tell ``NAME=path`` from a folder of that name.
        namespace: The notebook's variables.

    Raises:
        PlanError: An input, output or resource that cannot be meant as given, or options that exclude each other.
        SyntaxError: The cell is not Python, and an input could be a named one.
    """
    if not options.input:
        raise PlanError("%%pai_mapreduce needs an input: -i FILES, or -i NAME of a notebook variable")
    inputs = [_input(text, options.sql, program, namespace) for text in options.input]
    out, outputs = _outputs(options.out)
    targets = [target for target in [out, *(output["target"] for output in outputs.values())] if target is not None]
    if options.partition_by and not any(map(is_path, targets)):
        raise PlanError("--partition-by makes folders of an output path: -o PATH")
    if options.sql:
        _check_sql(options, program, inputs, outputs)
    return {
        "inputs": inputs,
        "format": options.format,
        "out": out,
        "out_kind": "none" if out is None else _kind(out),
        "outputs": outputs,
        "as": options.kind or ("dataframe" if options.sql else "list"),
        "reducers": options.reducers,
        "overwrite": options.overwrite,
        "sort": options.sort,
        "key": list(options.key),
        "partition_by": list(options.partition_by),
        "resources": _resources(options.resource),
        "max_bad": options.max_bad,
        "sample": options.sample,
        "sql": options.sql,
        "backups": options.backups,
    }


def input_variables(plan: Plan) -> tuple[str, ...]:
    """Names of notebook variables a plan reads as inputs."""
    entries = [entry for entry in plan.options.get("inputs", ()) if isinstance(entry, dict)]
    return tuple(dict.fromkeys(entry["variable"] for entry in entries if "variable" in entry))


def output_variables(plan: Plan) -> dict[str, str]:
    """Notebook variables that keep a plan's named outputs, by the output's name."""
    outputs = plan.options.get("outputs") or {}
    return {name: output["target"] for name, output in outputs.items() if output["kind"] == "variable"}


def is_path(text: str) -> bool:
    """Whether ``-o`` names a file rather than a variable."""
    return not text.isidentifier()


def _input(text: str, sql: bool, program: Program, namespace: Mapping[str, Any]) -> str | dict[str, str]:
    name, equals, value = text.partition("=")
    if equals and name.isidentifier() and (sql or not _exists(text) or f"map_{name}" in program.names()):
        if not value:
            raise PlanError(f"-i {text}: what is the input {name!r}? Write {name}=PATH, or {name}=NAME of a variable")
        found = _source(value, text, namespace)
        return {**({"path": found} if isinstance(found, str) else found), "name": name}
    found = _source(text, text, namespace)
    if not sql:
        return found
    if isinstance(found, dict) and "variable" in found:
        return {**found, "name": found["variable"]}
    stem = re.match(r"\w*", Path(text.removeprefix(RUN)).name)
    guess = stem[0] if stem and stem[0].isidentifier() else "NAME"
    raise PlanError(f"-i {text}: --sql needs a name for this input, as in -i {guess}={text}")


def _source(value: str, text: str, namespace: Mapping[str, Any]) -> str | dict[str, str]:
    """A path, or what stands for a variable or a run."""
    if value.startswith(RUN) and not _exists(value):
        if value == RUN:
            raise PlanError(f"-i {text}: which run? Write run:ID; %pai_runs lists them")
        return {"run": value.removeprefix(RUN)}
    if value.isidentifier() and value in namespace:
        return {"variable": value}
    if re.fullmatch(r"[^\W\d]\w*", value) and not _exists(value):
        raise PlanError(f"-i {text}: the notebook has no variable {value!r}, and there is no file of that name")
    return value


def _exists(text: str) -> bool:
    path = os.path.expanduser(text)
    return os.path.exists(path) or (glob.has_magic(path) and next(glob.iglob(path, recursive=True), None) is not None)


def _outputs(words: Sequence[str]) -> tuple[str | None, dict[str, dict[str, str]]]:
    """The main output, if any, and the named ones."""
    main: str | None = None
    named: dict[str, dict[str, str]] = {}
    for word in words:
        name, equals, target = word.partition("=")
        if not equals or "/" in name:
            if main is not None:
                raise PlanError(
                    f"-o {main} {word}: there is one main output; name the others, as in -o {main} NAME={word}, "
                    f'and yield pai.output("NAME", record)'
                )
            main = word
        elif not name.isidentifier() or not target:
            raise PlanError(f"-o {word}: a named output is written NAME=PATH or NAME=VARIABLE")
        elif name in named:
            raise PlanError(f"-o {word}: two outputs are called {name!r}")
        else:
            named[name] = {"kind": _kind(target), "target": target}
    _refuse_same([target for target in [main, *(output["target"] for output in named.values())] if target])
    return main, named


def _kind(target: str) -> str:
    return "path" if is_path(target) else "variable"


def _refuse_same(targets: Sequence[str]) -> None:
    places = [os.path.normpath(target) if "://" not in target else target for target in targets]
    for i, place in enumerate(places):
        if place in places[:i]:
            raise PlanError(f"-o {' '.join(targets)}: two outputs cannot both go to {targets[i]}")


def _resources(words: Sequence[str]) -> list[str]:
    paths = [os.path.expanduser(word) for word in words]
    names: dict[str, str] = {}
    for word, path in zip(words, paths, strict=True):
        if not os.path.isfile(path):
            what = "a folder; a file is expected" if os.path.isdir(path) else f"no file; looked for in {os.getcwd()}"
            raise PlanError(f"--resource {word}: this is {what}")
        name = os.path.basename(path)
        if names.setdefault(name, path) != path:
            raise PlanError(f"--resource {word}: there are two files called {name!r}; pai.resource tells them by name")
    return list(dict.fromkeys(paths))


def _check_sql(
    options: argparse.Namespace, program: Program, inputs: Sequence[Any], outputs: Mapping[str, Any]
) -> None:
    if not program.source.strip():
        tables = ", ".join(dict.fromkeys(entry["name"] for entry in inputs))
        raise PlanError(f"--sql: the cell is empty; write one SELECT query over {tables}")
    instead = {
        "--key": (options.key, "the query's GROUP BY and JOIN say it"),
        "--sort": (options.sort, "write ORDER BY"),
        "--resource": (options.resource, "a query reads its inputs only; write -i NAME=FILE"),
        "--push": (options.push, "write -i NAME to query a variable"),
        "--max-bad": (options.max_bad is not None, "write TRY_CAST for what may be wrong in a row"),
        "--hp": (options.hp, "write the values into the query"),
        "--local": (options.local, "a query does not run in the notebook"),
        "named outputs": (outputs, "a query has one result"),
    }
    for option, (given, advice) in instead.items():
        if given:
            raise PlanError(f"--sql does not go with {option}: {advice}")
