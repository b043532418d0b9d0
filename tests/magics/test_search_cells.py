"""``%%pai_search``: the cell below it or one before, its space, what it says; in IPython and in a kernel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from paibook.errors import PlanError, ProgramError
from paibook.hyperparameters import HyperParameters, between, choice
from paibook.session import Session
from paibook_magics.cells import Cells
from paibook_magics.search_cells import SearchCells, help_text, inner_cell, parser

BODY = "%%pai_allreduce -n 1 --hp Model\npai.log(step=0, loss=(hp.lr - 0.3) ** 2)\n"


@pytest.fixture
def cells(runs_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cells]:
    monkeypatch.chdir(tmp_path)
    session = Session("inline")
    made = Cells(InteractiveShell(), session)
    made.shell.user_ns["Model"] = HyperParameters.of({"lr": between(0.0, 1.0, default=0.5), "opt": choice("a", "b")})
    yield made
    session.close()


def refused(cells: Cells, line: str, body: str = BODY, kind: type[Exception] = PlanError) -> str:
    with pytest.raises(kind) as caught:
        SearchCells(cells).run_blocking(line, body)
    return str(caught.value)


def test_the_cell_below_is_searched_and_the_best_kept(cells: Cells, capsys: Any, tmp_path: Path) -> None:
    SearchCells(cells).run_blocking("--trials 4 --study s --seed 1 -o best", BODY)
    best = cells.shell.user_ns["best"]
    assert set(best) == {"lr", "opt"}
    said = capsys.readouterr().out
    assert said.startswith("study s: lr, opt, kept in paibook-studies/s.journal\n")
    assert f"--hp lr={json.dumps(best['lr'])} opt={best['opt']}" in said
    assert "4 of 4 trials" in said
    assert (tmp_path / "paibook-studies" / "s.journal").exists()


def test_a_cell_that_ran_before_is_searched(cells: Cells, capsys: Any) -> None:
    assert "none yet" in refused(cells, "", "")
    cells.run_cell_blocking("pai_allreduce", "-n 1 --hp lr=0.5 fixed=3", "pai.log(loss=hp.lr + hp.fixed)")
    assert "nothing to search" in refused(cells, "", "")
    assert "lr: both a value and a range" in refused(cells, "--space lr=0..1", "")
    cells.run_cell_blocking("pai_allreduce", "-n 1 --hp fixed=3", "pai.log(loss=hp.fixed + getattr(hp, 'lr', 0))")
    SearchCells(cells).run_blocking("--space lr=0..1 --trials 2 -o best", "")
    assert cells.shell.user_ns["best"]["fixed"] == 3
    assert "no %%pai_* cell has run there; there are" in refused(cells, "--cell 99", "")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--trial 3", "did you mean --trials?"),
        ("--trials 0", "at least 1 is expected"),
        ("--jobs none", "a whole number is expected"),
        ("--timeout -1", "seconds above 0"),
        ("--direction up", "invalid choice: 'up'"),
        ("--space lr", "--space takes words such as"),
        ("--space lr=0..7", "lr: Input should be less than or equal to 1"),
        ("--space rate=0..7", "rate: HyperParameters has no such hyperparameter; it has lr, opt"),
        ("--resume", "Name it with --study"),
        ("--resume --study none", "there is no study 'none'"),
        ("--metric acc --trials 1", "it logs: loss"),
        ("--jobs 90 --trials 90", "--jobs 90: 90 trials of 1 ranks take"),
    ],
)
def test_bad_words_are_named(cells: Cells, line: str, said: str) -> None:
    assert said in refused(cells, line)


def test_the_line_below_begins_a_cell(cells: Cells) -> None:
    assert "got 'x = 1'" in refused(cells, "", "\nx = 1\n")
    assert "Cell In" in refused(cells, "", "%%pai_allreduce --hp Model\nreturn 1\n", ProgramError)


@pytest.mark.parametrize("option", ["-a", "--detach", "--dry-run", "--local"])
def test_options_of_the_cell_that_do_not_go_with_a_search(cells: Cells, option: str) -> None:
    assert f"{option} does not go with a search" in refused(cells, "", BODY.replace("-n 1", f"-n 1 {option}"))


def test_lines_are_counted_as_the_notebook_does() -> None:
    cell = inner_cell("\n%%pai_ps -n 2 --hp A\nx = 1\n", "Cell In[3]")
    assert (cell.magic, cell.line) == ("pai_ps", "-n 2 --hp A")
    # The magic's own line comes on top: x stands in the notebook's line 4.
    assert ("\n" + cell.body).splitlines()[3] == "x = 1"


def test_every_option_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "hyperparameters.md").read_text()
    options = {option for action in parser()._actions for option in action.option_strings}
    assert sorted(option for option in options if f"`{option}" not in text) == []
    assert "--trials N" in help_text()


@pytest.mark.slow
class TestInAKernel:
    def test_a_search_is_live_and_leaves_a_figure(self, fresh_notebook: Any, tmp_path: Path) -> None:
        notebook = fresh_notebook(PAIBOOK_CLUSTER="inline")
        notebook.run(f"import os; os.chdir({str(tmp_path)!r})")
        notebook.run("import paibook as pai\nmodel = {'lr': pai.between(0.0, 1.0, default=0.5)}")
        cell = "%%pai_search --trials 6 -o best\n%%pai_allreduce -n 1 --hp model\n"
        outcome = notebook.run(cell + "import time; time.sleep(0.2)\npai.log(step=0, loss=hp.lr)")
        assert (outcome.status, outcome.traceback) == ("ok", "")
        live, static = outcome.displays[1], outcome.displays[-2]
        assert not any(outcome.displays[-1].values())  # where the live view was
        assert "application/vnd.jupyter.widget-view+json" in live
        assert "image/svg+xml" in static
        assert "6 of 6 trials" in static["text/plain"]
        assert float(notebook.value("best['lr']")) < 0.7

    def test_an_error_shows_the_cells_own_line(self, fresh_notebook: Any, tmp_path: Path) -> None:
        notebook = fresh_notebook()
        notebook.run(f"import os; os.chdir({str(tmp_path)!r})")
        outcome = notebook.run("%%pai_search --space lr=0.0..1 --jobs 1\n%%pai_allreduce -n 1\nx = 1\n1 / 0")
        assert outcome.status == "error"
        assert "ZeroDivisionError on rank 0" in outcome.traceback
        assert "line 4" in outcome.traceback

    def test_stop_ends_the_search_and_says_how_to_go_on(self, fresh_notebook: Any, tmp_path: Path) -> None:
        notebook = fresh_notebook()
        notebook.run(f"import os; os.chdir({str(tmp_path)!r})")

        pressed: list[float] = []

        def interrupt(outcome: Any) -> None:
            if not pressed and any(
                "application/vnd.jupyter.widget-view+json" in display for display in outcome.displays
            ):
                pressed.append(outcome.seconds)
                notebook.manager.interrupt_kernel()

        cell = "%%pai_search --space lr=0.0..1 --jobs 1 --study s\n%%pai_allreduce -n 1\n"
        outcome = notebook.run(cell + "import time\npai.log(step=0, loss=1)\ntime.sleep(60)", interrupt)
        assert outcome.status == "error"
        assert "the search was stopped" in outcome.evalue
        assert "--study s --resume" in outcome.evalue
        assert notebook.run("%pai_cluster status").status == "ok"
