"""What is written of a run: the notebook, a page, a script, a PDF."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nbformat

from paibook.errors import DataError
from paibook.jobs.job import Job

SUFFIXES = {"ipynb": ".ipynb", "html": ".html", "script": ".py", "pdf": ".pdf"}


def write_outputs(job: Job, run_id: str, notebook: Path, folder: Path) -> list[Path]:
    """Write what the job asks for into the run's folder, and copy it to the job's output folder.

    Raises:
        DataError: A folder cannot be written to, or a converter is missing or fails; says which.
    """
    made = []
    for kind in job.outputs:
        path = notebook if kind == "ipynb" else folder / f"{job.slug}{SUFFIXES[kind]}"
        if kind != "ipynb":
            _convert(kind, notebook, path)
        made.append(path)
    return made if not job.output else [_copy(path, job, run_id) for path in made]


def _convert(kind: str, notebook: Path, path: Path) -> None:
    from nbconvert import HTMLExporter, PDFExporter, PythonExporter

    exporters = {"html": HTMLExporter, "script": PythonExporter, "pdf": PDFExporter}
    offline = dict.fromkeys(("require_js_url", "jquery_url", "mathjax_url", "mermaid_js_url"), "")
    exporter = HTMLExporter(embed_images=True, **offline) if kind == "html" else exporters[kind]()
    try:
        body: Any = exporter.from_notebook_node(nbformat.read(notebook, as_version=4))[0]
    except Exception as error:  # converters fail in ways of their own: no LaTeX, a template's error
        raise DataError(f"the {kind} of the run could not be made: {error}") from error
    try:
        path.write_bytes(body if isinstance(body, bytes) else body.encode("utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from error


def _copy(path: Path, job: Job, run_id: str) -> Path:
    target = Path(job.output).expanduser() / f"{run_id}{path.suffix}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    except OSError as error:
        raise DataError(f"the output folder {job.output!r} cannot be written to: {error.strerror}") from error
    return target
