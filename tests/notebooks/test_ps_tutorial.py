"""The parameter-server tutorial runs from top to bottom; its cells check their own answers."""

import re

import nbformat
import pytest

from paibook_magics.options import parser
from tests.notebooks.conftest import NOTEBOOKS, code_cells

TUTORIAL = NOTEBOOKS / "03-parameter-server.ipynb"


def test_every_line_parses_solutions_too(tutorial):
    sources = [cell.source for cell in tutorial.cells]
    lines = [line for source in sources for line in re.findall(r"^%%pai_ps (.*)$", source, re.MULTILINE)]
    assert len(lines) >= 12
    assert {parser("pai_ps").parse_line(line).consistency for line in lines} == {"bsp", "ssp", "asp"}


def test_solutions_are_folded_and_are_python(tutorial):
    text = next(cell.source for cell in tutorial.cells if cell.id == "exercises")
    assert text.count("<details>") == text.count("</details>") == 4
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        compile(re.sub(r"^%%.*\n", "", block), "<solution>", "exec")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_runs_and_shows_what_it_tells(tutorial, runner, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("PAIBOOK_RUNS", str(tmp_path / "runs"))
    notebook = nbformat.from_dict(tutorial)
    progress = runner.Progress(notebook)
    runner.execute(notebook, progress, timeout=120)  # raises where a cell, or a check in one, fails
    cells = {cell.id: cell for cell in code_cells(notebook)}
    for name in ("logistic-plot", "race-plot", "naps-plot", "ftrl-plot"):
        assert any("<svg" in output.get("data", {}).get("image/svg+xml", "") for output in cells[name].outputs), name
    assert "one clock later, [1. 1. 2.]" in cells["first-look"].outputs[0].text
    stalest = eval(cells["race-check"].outputs[0].data["text/plain"])
    assert stalest["BSP"] == 0 < stalest["SSP, staleness 8"] <= 8
    assert runner.left_behind(progress.look()) == []
