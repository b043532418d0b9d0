"""A Python script that needs no Jupyter: the cells, with the magics as calls of paibook's API."""

from __future__ import annotations

import ast
import contextlib
import io
import tokenize
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from paibook.errors import PlanError
from paibook.jobs.exporters.request import ExportOptions
from paibook.jobs.job import Job
from paibook.jobs.notebook import check_job, source, with_parameters
from paibook.jobs.secret_references import is_reference

HEAD = '''\
"""paibook job {name}, made of {notebook}.

It runs the cells once, when it is started, without a kernel. What only a notebook has is left out: %load_ext, %pip,
%pai_runs, %%time. Retries, time limit, outputs and notification are `paibook job run`'s.
"""
{future}
import os
import subprocess
import sys

# Where the notebook was: relative paths and modules beside it are found there.
FOLDER = {folder!r}
os.chdir(FOLDER)
sys.path.insert(0, FOLDER)
{settings}
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook.session import Session


def _show(event):
    """Print what ranks print and display; to the true output, since what a rank's thread prints is an event again."""
    if event.kind in ("stdout", "stderr"):
        print(event.data, end="", file=getattr(sys, f"__{{event.kind}}__"), flush=True)
    elif event.kind in ("display", "result"):
        print(event.data.get("text/plain", ""), file=sys.__stdout__, flush=True)


def display(*objects, raw=False, **options):
    """Print what a notebook would show."""
    for shown in objects:
        print(shown.get("text/plain", "") if raw else shown, flush=True)


# Processes that a cluster starts may read this file again, and must not run it again.
if __name__ == "__main__":
    _session = Session()
'''


def export(job: Job, options: ExportOptions) -> dict[str, str]:
    """``NAME.py``.

    Raises:
        PlanError: The notebook has cells that only a notebook can run; names the first.
    """
    notebook = with_parameters(check_job(job), job.parameters)
    language = notebook["metadata"]["kernelspec"].get("language") or "python"
    if language != "python":
        raise PlanError(f"{job.notebook!r} is written in {language}; only Python can become a script")
    folder = str(Path(job.notebook).absolute().parent)
    # Lines of magics name files as the notebook sees them.
    with contextlib.chdir(folder):
        cells = list(_cells(notebook))
    head = HEAD.format(
        name=job.name,
        notebook=_said(job.notebook),
        future="".join(f"{line}\n" for line in sorted({line for text in cells for line in _future(text)})),
        folder=folder,
        settings="\n".join(_settings(job)),
    )
    text = "\n".join([head, *(indented(_without_future(text)) for text in cells)])
    try:
        compile(text, f"{job.slug}.py", "exec", dont_inherit=True)
    except SyntaxError as error:
        raise PlanError(f"{job.notebook!r} makes no valid script: {error.msg} in {error.text!r}") from error
    return {f"{job.slug}.py": text}


def indented(text: str) -> str:
    """Code four columns further right, but for the lines within strings."""
    inside = set(_lines_within_strings(text))
    lines = text.split("\n")
    return "\n".join(
        line if number in inside or not line.strip() else f"    {line}" for number, line in enumerate(lines, 1)
    )


def _lines_within_strings(text: str) -> Iterator[int]:
    """Numbers of the lines that begin within a string, counted from 1."""
    begun: list[int] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind = tokenize.tok_name[token.type]
        if kind == "STRING":
            yield from range(token.start[0] + 1, token.end[0] + 1)
        elif kind.endswith("STRING_START"):  # from Python 3.12 on, an f-string is several tokens
            begun.append(token.start[0])
        elif kind.endswith("STRING_END"):
            yield from range(begun.pop() + 1, token.end[0] + 1)


def _cells(notebook: dict[str, Any]) -> Iterator[str]:
    # The grammar of the magics is the surfaces' own; reached for only here, as `%load_ext paibook` is.
    from paibook_magics.as_python import as_python

    names: set[str] = set()
    number = 0
    for cell in notebook["cells"]:
        text = source(cell)
        if cell.get("cell_type") == "markdown":
            yield "".join(f"# {line}".rstrip() + "\n" for line in text.split("\n"))
        elif cell.get("cell_type") == "code" and text.strip():
            number += 1
            made = as_python(text, f"Cell In[{number}]", names)
            names |= made.names
            if "raises-exception" in cell.get("metadata", {}).get("tags", ()):
                made = replace(made, text=_going_on(made.text))
            yield f"# In[{number}]\n{made.text}".rstrip("\n") + "\n"


def _going_on(text: str) -> str:
    """A cell that may fail, as its tag says."""
    said = 'print(f"{type(_error).__name__}: {_error}", file=sys.stderr)'
    return f"try:\n{indented(text.rstrip())}\nexcept Exception as _error:\n    {said}\n"


def _future(text: str) -> list[str]:
    """The ``from __future__`` lines of a cell, which stand at a file's head or nowhere."""
    return [ast.unparse(node) for node in _future_nodes(text)]


def _without_future(text: str) -> str:
    lines = text.split("\n")
    for node in _future_nodes(text):
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1):
            lines[number - 1] = ""
    return "\n".join(lines)


def _future_nodes(text: str) -> list[ast.ImportFrom]:
    body = ast.parse(text).body
    return [node for node in body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]


def _settings(job: Job) -> Iterator[str]:
    """What the job's kernel has in its environment; the settings are read when paibook is imported."""
    yield f'os.environ.setdefault("PAIBOOK_CLUSTER", {job.cluster!r})'
    if job.resources.workers:
        yield f'os.environ.setdefault("PAIBOOK_WORKERS", "{job.resources.workers}")'
    if any(is_reference(value) for value in job.variables.values()):
        yield "from paibook.jobs.secret_references import look_up"
    for name, value in job.variables.items():
        yield f"os.environ[{name!r}] = {f'look_up({value!r})' if is_reference(value) else repr(value)}"


def _said(path: str) -> str:
    return Path(path).name.encode("unicode_escape").decode().replace('"', "'").replace("\\", "/")
