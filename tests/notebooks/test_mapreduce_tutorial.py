"""The MapReduce tutorial runs from top to bottom; its cells check their own answers."""

import re

import nbformat
import pytest

from paibook_magics.options import parser
from tests.notebooks.conftest import NOTEBOOKS, code_cells

TUTORIAL = NOTEBOOKS / "01-mapreduce.ipynb"


def test_every_line_parses_solutions_too(tutorial):
    cells = [cell.source for cell in tutorial.cells]
    lines = [line for source in cells for line in re.findall(r"^%%pai_mapreduce (.*)$", source, re.MULTILINE)]
    assert len(lines) >= 15
    assert [parser("pai_mapreduce").parse_line(line).input for line in lines].count([]) == 0


def test_solutions_are_folded(tutorial):
    text = next(cell.source for cell in tutorial.cells if cell.id == "exercises")
    assert text.count("<details>") == text.count("</details>") == 5


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_runs_and_draws_the_readers_own_data(tutorial, runner, tmp_path, monkeypatch):
    for library in ("duckdb", "fastdigest", "sqlglot", "stop_words"):
        pytest.importorskip(library)
    monkeypatch.setenv("PAIBOOK_RUNS", str(tmp_path / "runs"))
    notebook = nbformat.from_dict(tutorial)
    progress = runner.Progress(notebook)
    runner.execute(notebook, progress, timeout=120)  # raises where a cell, or a check in one, fails
    cells = {cell.id: cell for cell in code_cells(notebook)}
    for name in ("draw", "partition-draw"):
        drawings = [output.data["image/svg+xml"] for output in cells[name].outputs if "data" in output]
        assert len(drawings) == 1
        assert "wind × 4" in drawings[0]
        assert "reduce" in drawings[0]
    assert runner.left_behind(progress.look()) == []
