"""The script: it runs, on a real cluster, where there is no Jupyter, and gives what the notebook gives."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from paibook.errors import PlanError
from paibook.jobs import Job
from paibook.jobs.exporters import export_job
from paibook.jobs.exporters.script import indented

# Importing any of these fails, as it does where they are not installed.
NOTEBOOKS = ("jupyter_server", "nbclient", "nbconvert", "nbformat", "papermill", "paibook_magics")
JUPYTER = (*NOTEBOOKS, "IPython", "ipykernel", "ipyparallel", "ipywidgets", "jupyter_client", "jupyter_core")


def run(job, options, tmp_path, missing=JUPYTER, **environment):
    ((name, text),) = export_job(job, "script", options).items()
    (tmp_path / name).write_text(text)
    blocker = tmp_path / "no_jupyter"
    blocker.mkdir(exist_ok=True)
    (blocker / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({missing!r}))\n")
    path = os.pathsep.join([str(blocker), *filter(None, [os.environ.get("PYTHONPATH")]), *sys.path])
    return subprocess.run(
        [sys.executable, str(tmp_path / name)],
        capture_output=True,
        text=True,
        timeout=110,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "PAIBOOK_RUNS": str(tmp_path / "runs"), **environment},
    )


def test_it_runs_without_jupyter(job, options, tmp_path):
    done = run(replace(job, cluster="inline"), options, tmp_path, API_KEY="k")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "6 1.2000000000000002"


def test_a_secret_that_is_missing_is_named(job, options, tmp_path):
    done = run(replace(job, cluster="inline"), options, tmp_path)
    assert done.returncode == 1
    assert "environment variable API_KEY is not set" in done.stderr


def test_a_failing_cell_fails_the_script_at_its_own_line(notebook_of, options, tmp_path):
    path = notebook_of(tmp_path / "a.ipynb", "%%pai_allreduce -n 2\nx = 1\n1 / 0")
    done = run(Job("a", str(path), cluster="inline"), options, tmp_path)
    assert done.returncode == 1
    assert "Cell In[1]" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_cells_become_python(notebook_of, options, tmp_path):
    (tmp_path / "helper.py").write_text("value = 5\n")
    path = notebook_of(
        tmp_path / "a.ipynb",
        "from __future__ import annotations\nimport helper",
        "%matplotlib inline\nx = 'one two'\ntext = '''\n    kept\n'''\nprint(repr(text), helper.value)",
        "out = !echo {x} $x $UNKNOWN\nprint(out)",
        "%%time\nif True:\n    !exit 3\nprint('after')",
        "%%bash\necho in bash > said.txt",
        "%%writefile made.txt\na\\b\n",
        "%env NAME={helper.value}\nimport os\nprint(os.environ['NAME'])",
        ("1 / 0", "raises-exception"),
        "display({'text/plain': 'shown'}, raw=True)\nprint(open('made.txt').read(), open('said.txt').read().strip())",
    )
    done = run(Job("a", str(path), cluster="inline", variables={"UNKNOWN": "3"}), options, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        r"'\n    kept\n' 5",
        "['one two one two 3']",
        "after",
        "5",
        "shown",
        "a\\b",
        " in bash",
    ]
    assert "ZeroDivisionError: division by zero" in done.stderr


@pytest.mark.slow
def test_the_embedded_cluster_does_not_run_it_again(job, options, tmp_path):
    # Its ranks are ipyparallel's engines, which come with paibook.
    done = run(job, options, tmp_path, missing=NOTEBOOKS, API_KEY="k")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "6 1.2000000000000002"
    assert done.stdout.count("6 1.2") == 1


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("x = 1\nawait run", r"Cell In\[2\], line 2: .*write run.result\(\)"),
        ("%%javascript\nalert(1)", r"Cell In\[2\]: %%javascript has no counterpart"),
        ("%store x", r"%store x has no counterpart"),
        ("get_ipython().kernel", r"get_ipython\(\) needs a notebook"),
        ("%%pai_allreduce --workrs 2\nx = 1", "did you mean --workers"),
        ("%%pai_mapreduce -i missing -o x\ndef map(r): yield r, 1", "no variable 'missing'"),
        ("def f(:", r"Cell In\[2\], line 1"),
    ],
)
def test_what_a_script_cannot_do_is_refused(cell, said, notebook_of, options, tmp_path):
    path = notebook_of(tmp_path / "a.ipynb", "x = 1", cell)
    with pytest.raises(PlanError, match=said):
        export_job(Job("a", str(path)), "script", options)


def test_strings_are_not_moved():
    text = 'if x:\n    a = """\nb\n  c"""\n    d = f"""{x}\ne"""\n    g = ("h"\n"i")\n'
    made = f"if True:\n{indented(text)}"
    names = {"x": 1}
    exec(made, names)
    assert (names["a"], names["d"], names["g"]) == ("\nb\n  c", "1\ne", "hi")
