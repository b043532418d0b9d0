"""``%pai_hp``: which model, which values, what the last run used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from paibook.errors import PlanError
from paibook.hyperparameters import HyperParameters
from paibook.session import Session
from paibook_magics.cells import Cells
from paibook_magics.hyperparameter_form import HyperParameterForms, last_used


@pytest.fixture
def cells(runs_folder: Path) -> Iterator[Cells]:
    session = Session("inline")
    yield Cells(InteractiveShell(), session)
    session.close()


def shown(cells: Cells, capsys: Any, line: str) -> str:
    HyperParameterForms(cells).show(line)
    return str(capsys.readouterr().out)


def test_without_a_front_end_the_values_are_text(cells: Cells, capsys: Any) -> None:
    cells.shell.user_ns["mine"] = {"lr": 0.1, "deep": {"x": 1}}
    assert shown(cells, capsys, "mine deep.x=3").splitlines()[-1] == "--hp mine deep.x=3"


def test_the_latest_cell_names_the_model_or_just_values(cells: Cells, capsys: Any) -> None:
    with pytest.raises(PlanError, match="no %%pai_\\* cell of this notebook has had hyperparameters yet"):
        shown(cells, capsys, "")
    cells.run_cell_blocking("pai_allreduce", "-n 1 --hp lr=0.5 name=a", "hp.lr")
    cells.run_cell_blocking("pai_allreduce", "-n 1", "1")
    assert shown(cells, capsys, "").splitlines()[-1] == "--hp lr=0.5 name=a"
    cells.shell.user_ns["Model"] = HyperParameters.of({"lr": 0.1, "steps": 3})
    cells.run_cell_blocking("pai_allreduce", "-n 1 --hp Model steps=4", "hp.lr")
    assert shown(cells, capsys, "").splitlines()[-1] == "--hp Model steps=4"


def test_bad_words_are_named(cells: Cells, capsys: Any) -> None:
    cells.shell.user_ns["mine"] = {"lr": 0.1}
    for line, said in (("absent", "'absent'"), ("mine lrr=1", "did you mean lr"), ("mine lr=nan", "finite number")):
        with pytest.raises(PlanError, match=said):
            shown(cells, capsys, line)


def test_the_last_run_with_such_names_is_found(cells: Cells) -> None:
    assert last_used(cells.session.history, ["lr"]) == ({}, "")
    cells.run_cell_blocking("pai_allreduce", "-n 1 --hp lr=0.5", "1")
    cells.run_cell_blocking("pai_allreduce", "-n 1 --hp other=1", "1")
    values, label = last_used(cells.session.history, ["lr"])
    assert values == {"lr": 0.5}
    assert label.startswith("run ")


def test_a_cell_that_runs_twice_is_offered_once(cells: Cells) -> None:
    for line in ("-n 1 --hp lr=1", "-n 1 --hp lr=2"):
        cells.run_cell_blocking("pai_allreduce", line, "hp.lr")
    cells.run_cell_blocking("pai_allreduce", "-n 1", "# note\n2")
    assert [cell.title.partition("]")[2] for cell in cells.recent] == [
        " %%pai_allreduce -n 1 · # note",
        " %%pai_allreduce -n 1 --hp lr=2 · hp.lr",
    ]
