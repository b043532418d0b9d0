"""The gallery of widgets runs from top to bottom, and the notebook keeps pictures."""

import nbformat
import pytest

from tests.notebooks.conftest import NOTEBOOKS, code_cells

TUTORIAL = NOTEBOOKS / "04-widgets.ipynb"
VEGALITE = "application/vnd.vegalite.v5+json"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_runs_and_keeps_pictures(tutorial, runner, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("PAIBOOK_RUNS", str(tmp_path / "runs"))
    notebook = nbformat.from_dict(tutorial)
    progress = runner.Progress(notebook)
    runner.execute(notebook, progress, timeout=120)  # raises where a cell, or a check in one, fails
    data = {cell.id: [output.data for output in cell.outputs if "data" in output] for cell in code_cells(notebook)}
    for name, panels in (("slow", 3), ("fast", 3), ("compare", 3), ("bad", 1)):
        (shown,) = [bundle for bundle in data[name] if VEGALITE in bundle]
        assert len(shown[VEGALITE]["concat"]) == panels
        assert shown["image/svg+xml"].startswith("<svg")
    assert "application/vnd.jupyter.widget-view+json" in data["look"][-1]
    assert "image/png" in data["paper"][-1]
    for name in ("count", "again"):
        kept = [bundle for bundle in data[name] if "pai-static" in bundle.get("text/html", "")]
        assert "reduce: 4/4 tasks" in kept[0]["text/plain"]
    assert runner.left_behind(progress.look()) == []
