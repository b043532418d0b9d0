"""Parameters come from the notebook's own cell, with its types."""

from __future__ import annotations

import json

import pytest

from paibook.errors import PlanError
from paibook.jobs import Job
from paibook.jobs.notebook import check_job, digest, parameters_of, read_notebook, source, with_parameters
from paibook.jobs.parameters import parse_values


@pytest.fixture
def path(tmp_path, notebook_of):
    folder = tmp_path / "my notes"
    folder.mkdir()
    cell = "lr: float = 0.1\nsteps = 3\nname = 'adam'\nlayers: list[int] = [1]\nflag = False\nfree = f()"
    return notebook_of(folder / "fit it.ipynb", "import os", (cell, "parameters"), "print(lr)")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"lrr": 1}, "no parameter 'lrr'; did you mean 'lr'?; there are flag, free"),
        ({"lr": "fast"}, "parameter lr is a number; got 'fast'"),
        ({"steps": 1.5}, "parameter steps is a whole number; got 1.5"),
        ({"steps": True}, "parameter steps is a whole number; got True"),
        ({"flag": 1}, "parameter flag is true or false"),
        ({"layers": 3}, "parameter layers is a list"),
    ],
)
def test_a_wrong_parameter_is_named(path, values, says) -> None:
    with pytest.raises(PlanError) as caught:
        check_job(Job("a", str(path), values))
    assert says in str(caught.value)


def test_right_ones_are_injected_after_their_cell(path) -> None:
    job = Job("a", str(path), {"lr": 1, "name": "env:NAME", "free": {"a": 1}})
    made = with_parameters(check_job(job), job.parameters)
    assert [source(cell).splitlines()[0] for cell in made["cells"]][:3] == [
        "import os",
        "lr: float = 0.1",
        "# Parameters",
    ]
    assert source(made["cells"][2]).splitlines()[2:] == ["lr = 1", "name = look_up('env:NAME')", "free = {'a': 1}"]
    again = with_parameters(made, {"lr": 2})
    assert len(again["cells"]) == len(made["cells"])
    assert digest(made) == digest(again) == digest(read_notebook(path))


def test_types_are_read_from_annotations_and_defaults(path) -> None:
    types = {name: parameter.type for name, parameter in parameters_of(read_notebook(path)).items()}
    assert types == {"lr": "float", "steps": "int", "name": "str", "layers": "list", "flag": "bool", "free": ""}


def test_values_are_json_but_text_where_text_is_asked_for(path) -> None:
    known = parameters_of(read_notebook(path))
    assert parse_values(["lr=0.5", "name=12", "flag=true"], known) == {"lr": 0.5, "name": "12", "flag": True}
    with pytest.raises(PlanError, match="name=value"):
        parse_values(["lr"])


def test_what_is_no_notebook_is_named(tmp_path, path) -> None:
    with pytest.raises(PlanError, match=r"there is no notebook .*fit it.ipynb"):
        read_notebook(path.with_name("fit.ipynb"))
    wrong = tmp_path / "wrong.ipynb"
    wrong.write_text("{")
    with pytest.raises(PlanError, match="cannot be read as a notebook"):
        read_notebook(wrong)
    wrong.write_text(json.dumps({"nbformat": 4, "cells": [], "metadata": {}}))
    with pytest.raises(PlanError, match="names no kernel"):
        read_notebook(wrong)
    wrong.write_text(json.dumps({"nbformat": 3}))
    with pytest.raises(PlanError, match="format 4"):
        read_notebook(wrong)


def test_without_a_parameters_cell_nothing_can_be_set(tmp_path, notebook_of) -> None:
    plain = notebook_of(tmp_path / "plain.ipynb", "x = 1")
    with pytest.raises(PlanError, match=r"give the cell .* the tag `parameters`"):
        check_job(Job("a", str(plain), {"x": 2}))
