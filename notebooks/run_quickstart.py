"""Run the quickstart notebook headless and say whether its answers agree with their references.

Writes ``out/quickstart.ipynb`` and ``out/quickstart.html``. The exit code is 0 only when every cell ran, every answer
agrees with scikit-learn's, and no process is left behind.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from traitlets.config import Config

NOTEBOOK = Path(__file__).with_name("quickstart.ipynb")
RESULTS = "application/vnd.paibook.results+json"
GONE_SECONDS = 10.0
WIDTH = 72


class Progress:
    """Prints a line per code cell, and remembers every process the run started."""

    def __init__(self, notebook: NotebookNode) -> None:
        self.total = sum(cell.cell_type == "code" for cell in notebook.cells)
        self.started: set[psutil.Process] = set()
        # Whoever runs the notebook may have children of its own, such as multiprocessing's resource tracker, that live
        # as long as it does.
        self._before = children()
        self._number = 0
        self._began = 0.0

    def on_cell_execute(self, cell: NotebookNode, cell_index: int) -> None:
        """A code cell starts."""
        if cell.cell_type == "code":
            self._number += 1
            self._began = time.perf_counter()
            print(f"[{self._number:2}/{self.total}] {title(cell):<{WIDTH}} ", end="", flush=True)

    def on_cell_executed(self, cell: NotebookNode, cell_index: int, execute_reply: Any) -> None:
        """A code cell has ended; look at the processes while they are there to be seen."""
        self.look()
        print(f"{time.perf_counter() - self._began:6.1f} s", flush=True)

    def look(self) -> set[psutil.Process]:
        """Every process the run has started so far."""
        self.started |= children() - self._before
        return self.started


def title(cell: NotebookNode) -> str:
    """What a cell is called while it runs: its magic's line, or its identifier."""
    line: str = cell.source.splitlines()[0] if cell.source.startswith("%%") else cell.id.replace("-", " ")
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"


def execute(notebook: NotebookNode, progress: Progress, timeout: float) -> None:
    """Run every cell in a paibook kernel, in place.

    Raises:
        CellExecutionError, CellTimeoutError, DeadKernelError: As nbclient does; the outputs so far are kept.
    """
    NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="paibook",
        store_widget_state=False,  # nothing is left of the widgets but their figures
        config=Config(KernelManager={"transport_encryption": "auto"}),
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
        on_cell_execute=progress.on_cell_execute,
        on_cell_executed=progress.on_cell_executed,
    ).execute()


def read_results(notebook: NotebookNode) -> list[dict[str, Any]]:
    """The comparisons the notebook recorded, from the outputs of its cells; empty when it did not come so far."""
    for cell in reversed(notebook.cells):
        for output in cell.get("outputs", ()):
            if RESULTS in output.get("data", {}):
                found: list[dict[str, Any]] = output["data"][RESULTS]
                return found
    return []


def save(notebook: NotebookNode, folder: Path) -> tuple[Path, Path]:
    """Write the notebook and its HTML; returns where."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "quickstart.ipynb", folder / "quickstart.html"
    nbformat.write(notebook, paths[0])
    # The page must look the same without a network, and nothing in it needs these.
    scripts = ("require_js_url", "jquery_url", "mathjax_url", "mermaid_js_url", "mermaid_layout_elk_js_url")
    offline = dict.fromkeys(scripts, "")
    body, _ = HTMLExporter(embed_images=True, **offline).from_notebook_node(notebook)
    paths[1].write_text(body, encoding="utf-8")
    return paths


def report(results: list[dict[str, Any]]) -> str:
    """A short table: what ran, on how many workers, the result, the reference, and whether they agree."""
    rows = [["what", "workers", "quantity", "result", "reference", "agreement"]]
    for entry in results:
        agreement = _verdict(entry["agrees"], entry["difference"], entry["within"])
        rows.append(
            [entry["what"], str(entry["workers"]), entry["quantity"], entry["result"], entry["reference"], agreement]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def children() -> set[psutil.Process]:
    """This process's children, and theirs."""
    return set(psutil.Process().children(recursive=True))


def left_behind(started: set[psutil.Process]) -> list[str]:
    """Of the processes the run started, those that live on after a while, as text; zombies do not count."""
    _, alive = psutil.wait_procs(list(started), GONE_SECONDS)
    return [text for process in alive if (text := _described(process))]


def main() -> int:
    """Run it all; returns the exit code."""
    parser = argparse.ArgumentParser(description="Run notebooks/quickstart.ipynb and compare with its references.")
    parser.add_argument("--out", type=Path, default=NOTEBOOK.parents[1] / "out", help="folder for what is written")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds a cell may take (default 300)")
    arguments = parser.parse_args()
    # The demo's runs stay with the demo, not in the user's own history.
    os.environ.setdefault("PAIBOOK_RUNS", str(arguments.out.resolve() / "runs"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    began = time.perf_counter()
    failure = ""
    progress = Progress(notebook)
    try:
        execute(notebook, progress, arguments.timeout)
    except CellExecutionError as error:
        failure = f"a cell failed: {error.ename}: {error.evalue}"
    except (CellTimeoutError, DeadKernelError) as error:
        failure = str(error)
    seconds = time.perf_counter() - began
    return conclude(notebook, progress.look(), failure, seconds, arguments.out)


def conclude(notebook: NotebookNode, started: set[psutil.Process], failure: str, seconds: float, out: Path) -> int:
    """Say what came of it; returns the exit code."""
    paths = save(notebook, out)
    results = read_results(notebook)
    if failure:
        print(f"\n\n{failure}\nThe notebook as far as it came: {_shown(paths[0])}", file=sys.stderr)
    if results:
        print(f"\n{report(results)}\n")
    remaining = left_behind(started)
    left = f"left behind: {', '.join(remaining)}"
    print(left if remaining else f"no process left behind (of {len(started)} started)")
    print(f"ran in {seconds:.0f} s: {_shown(paths[0])} and {_shown(paths[1])}")
    agrees = bool(results) and all(entry["agrees"] for entry in results)
    if agrees and not failure:
        print("every answer agrees with its reference")
    return 0 if agrees and not failure and not remaining else 1


def _verdict(agrees: bool, difference: float, within: float) -> str:
    if agrees:
        return f"agrees to {difference:.0e}" if difference else "agrees exactly"
    return f"DIFFERS by {difference:.0e}, {within:.0e} allowed"


def _described(process: psutil.Process) -> str:
    """Number, parent and command line; empty where the process has ended."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return ""
        return f"{process.pid} (child of {process.ppid()}) {' '.join(process.cmdline())[:200]}"
    except psutil.NoSuchProcess:
        return ""


def _shown(path: Path) -> str:
    return os.path.relpath(path) if path.resolve().is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    sys.exit(main())
