"""The notebook of a job, as a file: read and checked before anything is launched, and given its parameters."""

from __future__ import annotations

import ast
import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from paibook.errors import PlanError
from paibook.jobs.job import Job
from paibook.jobs.parameters import Parameter, check_parameters, declared
from paibook.jobs.secret_references import is_reference

TAG = "parameters"
INJECTED = "injected-parameters"


def read_notebook(path: Path) -> dict[str, Any]:
    """A notebook's JSON, nbformat 4.

    Raises:
        PlanError: It is missing, not readable, not a notebook, or names no kernel.
    """
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        near = sorted(p.name for p in path.parent.glob("*.ipynb"))[:5] if path.parent.is_dir() else []
        there = f"; in that folder there are {', '.join(near)}" if near else ""
        raise PlanError(f"there is no notebook {str(path)!r}{there}") from error
    except (OSError, ValueError) as error:
        raise PlanError(f"{str(path)!r} cannot be read as a notebook: {error}") from error
    if not isinstance(notebook, dict) or notebook.get("nbformat") != 4 or not isinstance(notebook.get("cells"), list):
        raise PlanError(f"{str(path)!r} is not a notebook of format 4; open it once in JupyterLab and save it")
    if not notebook.get("metadata", {}).get("kernelspec", {}).get("name"):
        raise PlanError(
            f"{str(path)!r} names no kernel (it has no kernelspec); open it in JupyterLab, choose a kernel and save it"
        )
    return notebook


def check_job(job: Job) -> dict[str, Any]:
    """Hold a job against its notebook; returns the notebook.

    Raises:
        PlanError: The notebook cannot be used, or a parameter is not one of its own or of another type.
    """
    notebook = read_notebook(Path(job.notebook))
    check_parameters(job.parameters, parameters_of(notebook), job.notebook)
    return notebook


def parameters_of(notebook: Mapping[str, Any]) -> dict[str, Parameter]:
    """The names, types and defaults that its ``parameters`` cell declares; none where it has no such cell."""
    return declared("\n".join(source(cell) for cell in _tagged(notebook, TAG)))


def digest(notebook: Mapping[str, Any]) -> str:
    """SHA-256 of what a notebook computes: its cells' kinds and sources, not their outputs, nor injected parameters."""
    own = (cell for cell in notebook["cells"] if INJECTED not in _tags(cell))
    cells = [[cell.get("cell_type"), source(cell)] for cell in own]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def with_parameters(notebook: dict[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with a cell that sets the parameters, after the ``parameters`` cell, as papermill places it.

    A secret's reference is looked up by that cell in the kernel, so that no file holds its value.
    """
    made: dict[str, Any] = json.loads(json.dumps(notebook))
    cells = made["cells"]
    cells[:] = [cell for cell in cells if INJECTED not in _tags(cell)]
    for cell in cells:
        if cell.get("cell_type") == "code":
            cell["outputs"], cell["execution_count"] = [], None
    if not parameters:
        return made
    place = next((index + 1 for index, cell in enumerate(cells) if TAG in _tags(cell)), 0)
    injected: dict[str, Any] = {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {"tags": [INJECTED]},
        "outputs": [],
        "source": "\n".join(_assignments(parameters)),
    }
    if made.get("nbformat_minor", 0) >= 5:
        injected["id"] = secrets.token_hex(4)
    cells.insert(place, injected)
    return made


def source(cell: Mapping[str, Any]) -> str:
    """A cell's source as one text."""
    text = cell.get("source", "")
    return text if isinstance(text, str) else "".join(text)


def _assignments(parameters: Mapping[str, Any]) -> Iterator[str]:
    yield "# Parameters"
    if any(is_reference(value) for value in parameters.values()):
        yield "from paibook.jobs.secret_references import look_up"
    for name, value in parameters.items():
        yield f"{name} = look_up({value!r})" if is_reference(value) else f"{name} = {value!r}"


def _tagged(notebook: Mapping[str, Any], tag: str) -> list[Mapping[str, Any]]:
    return [cell for cell in notebook["cells"] if tag in _tags(cell)]


def _tags(cell: Mapping[str, Any]) -> list[str]:
    tags = cell.get("metadata", {}).get("tags", [])
    return tags if isinstance(tags, list) else []


def names_in(text: str) -> set[str]:
    """Every name that a cell mentions; magics and what does not parse count by their words."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return {word for word in _words(text) if word.isidentifier()}
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _words(text: str) -> list[str]:
    return "".join(character if character.isalnum() or character == "_" else " " for character in text).split()
