"""Cells as Python: what the script sets, sends and keeps is what the cell would."""

from __future__ import annotations

import ast

import pytest

from paibook.errors import PlanError
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook_magics.as_python import as_python
from paibook_magics.line_expansion import expanded
from paibook_magics.planning import plan_cell


class Recorder:
    """Stands for the session: keeps the plan and the variables of the run that it is asked for."""

    def __init__(self, result):
        self.cluster = type("Cluster", (), {"reference": "inline"})
        self.asked = []
        self._result = result

    def run(self, plan, variables, on_event):
        self.asked.append((plan, variables))
        return self

    def result(self):
        return self._result


def carried_out(source, result=None, **names):
    """The session, and the names that the cell's script leaves."""
    made = as_python(source, "Cell In[1]", names)
    session = Recorder(result)
    space = {"_session": session, "_show": None, "Plan": Plan, "Program": Program, "Resources": Resources, **names}
    exec(made.text, space)
    return session, space, made


@pytest.mark.parametrize(
    ("magic", "line", "body"),
    [
        ("pai_allreduce", "-n 3 -g 1 -t 0,2 --push a --pull b@1 --timeout 5 --hp lr=0.1 name=adam --name x", "b = 1\n"),
        ("pai_allreduce", "--min-workers 1 -n 2 --no-check --placement pack", "x = '''a\"\"\"\\n'''\n"),
        ("pai_ps", '--cluster \'{"ps":{"count":2},"worker":{"count":3}}\' --consistency asp', "def train(): pass\n"),
        ("pai_mapreduce", "-i a -o out=kept --sort desc --max-bad 1%", "def map(r):\n    yield r, '\\\\d'\n"),
        ("pai_mapreduce", "-i a --sql -o out", "SELECT count(*) FROM a\n"),
        ("pai_allreduce", "--cluster tcp://host:8786", "x = 1\n"),
    ],
)
def test_the_plan_is_the_cells_own(magic, line, body):
    expected, _ = plan_cell(magic, line, body, {"a": 1}, "inline", "Cell In[1]")
    session, _, _ = (
        carried_out(f"%%{magic} {line}\n{body}", {"": [], "out": []}, a=1)
        if "pull" not in line
        else (carried_out(f"%%{magic} {line}\n{body}", type("Result", (), {"pulled": {"b@1": 7}}), a=1))
    )
    ((plan, variables),) = session.asked
    assert plan == expected
    assert variables == ({} if "push" not in line and "-i" not in line else {"a": 1})


def test_values_of_the_notebook_are_filled_in_when_it_runs():
    line = "%%pai_allreduce -n {workers} --hp lr={lr} kind=$kind --name run-{lr}-x --timeout {2 * lr} --push workers\nx"
    session, _, made = carried_out(line, workers=3, lr=0.5, kind="adam")
    ((plan, _),) = session.asked
    assert plan.resources.workers == 3
    assert dict(plan.hyperparameters) == {"lr": 0.5, "kind": "adam"}
    assert (plan.name, plan.timeout) == ("run-0.5-x", 1.0)
    assert "918273645" not in made.text
    with pytest.raises(PlanError, match=r"--max-bad.*got .\{lr\}x"):
        as_python("%%pai_mapreduce -i a --max-bad {lr}x\nx", "Cell In[1]", {"lr", "a"})


def test_results_are_kept_under_the_cells_names():
    values = type("Result", (), {"values": {1: "b", 0: "a"}, "pulled": {"w": 5, "w@1": 6}})
    _, space, made = carried_out("%%pai_allreduce -n 2 -o out --pull w,w@1\nw = 1", values)
    assert (space["out"], space["w"]) == (["a", "b"], 5)
    assert made.names >= {"out", "w"}
    _, space, made = carried_out(
        "%%pai_mapreduce -i a -o out bad=rest\ndef map(r): yield r, 1", {"": 1, "bad": 2}, a=[]
    )
    assert (space["out"], space["rest"], made.names) == (1, 2, {"out", "rest"})
    _, space, _ = carried_out("%%pai_allreduce -a\nx = 1", "r")
    assert space["_"].result() == "r"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("%pai_cluster attach tcp://h:1", "_session.attach('tcp://h:1')"),
        ("%pai_cluster attach client", "_session.attach(client)"),
        ("%pai_cluster scale 4", "_session.cluster.scale(4)"),
        ("%pai_cluster", "None"),
        ("%load_ext paibook", "None"),
        ("!ls $HOME", "subprocess.run('ls $HOME', shell=True)"),
        ("%cd {folder}/x", "os.chdir(str(folder) + '/x')"),
        ("%time é = len('é')", "é = len('é')"),
    ],
)
def test_lines_become_calls(line, code):
    text = as_python(line, "Cell In[1]", {"client", "folder"}).text
    assert ast.unparse(ast.parse(text)) == code


def test_lines_are_filled_in_as_ipython_does():
    names = {"a": "1 2", "b": {"k": "v"}}
    found = [eval(expanded(text, names), dict(names)) for text in ("{a}-$a", "{b['k']}", "$$a $c {c} {{a}}", 'x"\\')]
    assert found == ["1 2-1 2", "v", "$a $c {c} {a}", 'x"\\']


def test_a_bad_cell_is_named():
    with pytest.raises(PlanError, match=r"Cell In\[4\]: .*did you mean --workers"):
        as_python("%%pai_ps --worker 2\nx = 1", "Cell In[4]", ())
    with pytest.raises(PlanError, match=r"Cell In\[4\]: %pai_cluster explode: not understood"):
        as_python("%pai_cluster explode", "Cell In[4]", ())
