"""The programs as cells, and how they are run."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import paibook as pai
from paibook import session as sessions
from paibook.algorithms import count, names, source
from paibook.algorithms.cells import run
from paibook.errors import PlanError
from paibook.history import RunHistory
from paibook.program import Program
from paibook.runtimes.mapreduce.outline import outline
from paibook.session import Session


@pytest.mark.parametrize("name", names())
def test_every_program_is_a_cell_that_explains_itself(name):
    text = source(name)
    explanation = ast.get_docstring(ast.parse(text))
    assert explanation is not None
    assert len(explanation) > 80
    found = outline(Program(text), ["left", "right"] if name == "join" else [])
    assert len(found.stages) == (2 if name == "tf_idf" else 1)


def test_an_unknown_program_is_refused_with_the_nearest_one():
    with pytest.raises(PlanError, match="did you mean 'tf_idf'"):
        source("tfidf")


def test_records_are_counted_without_a_run_where_they_have_a_length(simulated, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a\nb\nc\n")
    assert count([1, 2], session=simulated) == 2
    assert simulated.plans == []
    assert count(str(path), session=simulated) == 3
    assert count([path, path], session=simulated) == 6


def test_options_reach_the_plan(simulated):
    run("count", [1, 2, 3], {}, session=simulated, workers=2, memory=10**9, reducers=1, format=None)
    plan = simulated.plans[0]
    assert dict(plan.options) == {"inputs": [{"variable": "records"}], "reducers": 1, "out_kind": "none"}
    assert (plan.resources.workers, plan.resources.memory, plan.name) == (2, 10**9, "count")


def test_an_output_path_and_named_inputs_reach_the_plan(simulated):
    out = Path("out.parquet")
    run("join", {"left": [], "right": []}, {"how": "inner"}, session=simulated, out=out, overwrite=True)
    options = simulated.plans[0].options
    assert (options["out"], options["out_kind"], options["overwrite"]) == ("out.parquet", "path", True)
    assert options["inputs"] == [{"variable": "left", "name": "left"}, {"variable": "right", "name": "right"}]


def test_an_interrupt_stops_the_run():
    cancelled = []

    class Interrupted:
        def result(self):
            raise KeyboardInterrupt

        def cancel(self):
            cancelled.append(True)

    class Busy:
        cluster = type("Cluster", (), {"reference": "inline"})

        def run(self, plan, variables):
            return Interrupted()

    with pytest.raises(KeyboardInterrupt):
        run("count", [1], {}, session=Busy())
    assert cancelled == [True]


def test_the_notebooks_session_is_the_first_one_that_is_open(tmp_path, monkeypatch):
    monkeypatch.setattr(sessions, "_open", [])
    first, second = (Session("inline", RunHistory(tmp_path / name)) for name in ("a", "b"))
    assert sessions.current() is first
    first.close()
    assert sessions.current() is second
    second.close()


def test_it_is_loaded_when_asked_for():
    assert pai.algorithms.source is source
    code = "import sys, paibook; assert 'paibook.algorithms' not in sys.modules; paibook.algorithms.names()"
    subprocess.run([sys.executable, "-c", code], check=True)
