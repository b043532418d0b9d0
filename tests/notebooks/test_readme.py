"""The cells that the README shows do what it says, in the paibook kernel."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]


def executed(cells: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Run cells in the kernel of this tree, in ``folder``; returns the executed cells."""
    (folder / "kernels").mkdir()
    (folder / "kernels" / "paibook").symlink_to(ROOT / "kernels" / "spec")
    monkeypatch.setenv("JUPYTER_PATH", str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(str(ROOT / root) for root in (".", "magics", "kernels")))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    NotebookClient(notebook, kernel_name="paibook", timeout=90, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook.cells


def text_of(cell: Any) -> str:
    """Everything a cell shows as text."""
    return "".join(out.get("text", "") or out.get("data", {}).get("text/plain", "") for out in cell.outputs)


@pytest.mark.slow
def test_the_first_cells_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = re.findall(r"^```\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    _lines, mapreduce, counts, allreduce, ps = executed(cells, tmp_path, monkeypatch)
    assert mapreduce.source.startswith("%%pai_mapreduce")
    assert eval(text_of(counts))["to"] == 2
    assert "[ranks 0-1] array([3.])" in text_of(allreduce)
    assert "training ended" in text_of(ps)
    assert any("image/svg+xml" in out.get("data", {}) for out in ps.outputs), "the curve is in the saved notebook"
