"""The tutorial of jobs runs from top to bottom."""

import nbformat
import pytest

from tests.notebooks.conftest import NOTEBOOKS, code_cells

TUTORIAL = NOTEBOOKS / "05-scheduled-jobs.ipynb"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_runs(tutorial, runner, tmp_path, monkeypatch):
    pytest.importorskip("cronsim")
    monkeypatch.setenv("PAIBOOK_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("PAIBOOK_JOBS", str(tmp_path / "jobs"))
    notebook = nbformat.from_dict(tutorial)
    progress = runner.Progress(notebook)
    runner.execute(notebook, progress, timeout=150)
    said = {cell.id: "".join(o.get("text", "") for o in cell.outputs) for cell in code_cells(notebook)}
    assert said["schedule"].count("T03:00+0") == 5
    for hint in (
        "never fires",
        "did you mean 'Europe/Berlin'",
        "did you mean 'lr'",
        "a whole number",
        "token=env:TOKEN",
    ):
        assert hint in said["refused"]
    assert said["run"].startswith("done")
    assert "cell 3 failed: FileNotFoundError" in said["failed"]
    assert "went on at cell 3" in said["resumed"]
    table = next(o for cell in code_cells(notebook) if cell.id == "each" for o in cell.outputs)
    assert table.data["text/plain"].count("done") == 2
    assert "rerun: the same" in said["diff"]
    assert "parameters.lr: 0.05 -> 0.5" in said["diff"]
    assert list((tmp_path / "jobs").glob("*.ipynb")) == []
    assert runner.left_behind(progress.look()) == []
