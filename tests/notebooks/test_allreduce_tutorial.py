"""The AllReduce tutorial runs from top to bottom; its cells check their own answers."""

import re

import nbformat
import pytest

from paibook_magics.options import parser
from tests.notebooks.conftest import NOTEBOOKS, code_cells

TUTORIAL = NOTEBOOKS / "02-allreduce.ipynb"


def test_every_line_parses_solutions_too(tutorial):
    cells = [cell.source for cell in tutorial.cells]
    lines = [line for source in cells for line in re.findall(r"^%%pai_allreduce (.*)$", source, re.MULTILINE)]
    assert len(lines) >= 14
    assert {parser("pai_allreduce").parse_line(line).workers for line in lines} == {2, 4}


def test_solutions_are_folded(tutorial):
    text = next(cell.source for cell in tutorial.cells if cell.id == "exercises")
    assert text.count("<details>") == text.count("</details>") == 4


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_runs_and_draws_the_readers_own_messages(tutorial, runner, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setenv("PAIBOOK_RUNS", str(tmp_path / "runs"))
    notebook = nbformat.from_dict(tutorial)
    progress = runner.Progress(notebook)
    runner.execute(notebook, progress, timeout=120)  # raises where a cell, or a check in one, fails
    cells = {cell.id: cell for cell in code_cells(notebook)}
    for name, panels, complete in [("draw", 5, 5), ("ring-draw", 7, 28)]:
        drawing = next(output.data["image/svg+xml"] for output in cells[name].outputs if "data" in output)
        assert drawing.count("after step") == panels - 1
        assert drawing.count(">1111<") >= complete
    assert error_of(cells["fails"]).ename == "UserCodeError"
    assert "total += 12 / count" in "\n".join(error_of(cells["fails"]).traceback)
    assert "0, [3, 0, 5], 4.0" in cells["debug-cell"].outputs[0].text
    assert "SIGKILL" in error_of(cells["kill"]).evalue
    assert runner.left_behind(progress.look()) == []


def error_of(cell):
    return next(output for output in cell.outputs if output.output_type == "error")
