"""The quickstart runs as `make demo` runs it, and its answers are scikit-learn's."""

import base64
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

SCRIPT = Path(__file__).parents[2] / "notebooks" / "run_quickstart.py"
ENTRY = {
    "what": "AllReduce",
    "workers": 2,
    "quantity": "log-loss",
    "result": "0.1",
    "reference": "0.1",
    "difference": 0.0,
    "within": 1e-6,
    "agrees": True,
}


def load_script():
    spec = importlib.util.spec_from_file_location("run_quickstart", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


quickstart = load_script()


def with_results(entries):
    """A notebook as it stands after a run that recorded these comparisons."""
    output = new_output("display_data", data={quickstart.RESULTS: entries, "text/plain": "a table"})
    return new_notebook(cells=[new_code_cell("table", id="results", outputs=[output])])


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The finished script, and the folder it wrote to."""
    out = tmp_path_factory.mktemp("out")
    environment = {**os.environ, "PAIBOOK_RUNS": str(out / "runs")}
    command = [sys.executable, str(SCRIPT), "--out", str(out)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280), out


@pytest.mark.slow
@pytest.mark.timeout(300)
class TestDemo:
    def test_every_answer_agrees_and_nothing_is_left_behind(self, demo):
        done, out = demo
        assert done.returncode == 0, done.stdout + done.stderr
        assert "no process left behind" in done.stdout
        assert "DIFFERS" not in done.stdout
        results = quickstart.read_results(nbformat.read(out / "quickstart.ipynb", as_version=4))
        assert {entry["what"].split(":")[0] for entry in results} == {"MapReduce", "AllReduce", "Parameter server"}
        assert all(entry["agrees"] and entry["difference"] <= entry["within"] for entry in results)

    def test_the_saved_notebook_keeps_its_curves_without_a_kernel(self, demo):
        done, out = demo
        assert done.returncode == 0, done.stderr
        cells = {cell.id: cell for cell in nbformat.read(out / "quickstart.ipynb", as_version=4).cells}
        page = (out / "quickstart.html").read_text(encoding="utf-8").replace("\n", "")
        for name in ("allreduce", "ps"):
            bundles = [output.get("data", {}) for output in cells[name].outputs]
            figures = [bundle for bundle in bundles if "image/svg+xml" in bundle]
            assert len(figures) == 1, f"{name} shows {len(figures)} curves"
            assert "loss" in figures[0]["text/plain"]
            assert not any("application/vnd.jupyter.widget-view+json" in bundle for bundle in bundles)
            figure = base64.b64encode(figures[0]["image/svg+xml"].encode()).decode()
            assert figure in page
        assert "https://cdn" not in page


def test_the_notebook_is_kept_clean():
    notebook = nbformat.read(quickstart.NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "paibook"
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")


def test_a_cell_that_fails_is_reported_and_saved(tmp_path, monkeypatch, capsys):
    path = tmp_path / "quickstart.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("1 / 0", id="wrong")]), path)
    monkeypatch.setattr(quickstart, "NOTEBOOK", path)
    monkeypatch.setattr(sys, "argv", ["run_quickstart.py", "--out", str(tmp_path / "out")])
    monkeypatch.setenv("PAIBOOK_RUNS", str(tmp_path / "runs"))
    assert quickstart.main() == 1
    printed = capsys.readouterr()
    assert "a cell failed: ZeroDivisionError: division by zero" in printed.err
    saved = nbformat.read(tmp_path / "out" / "quickstart.ipynb", as_version=4)
    assert saved.cells[0].outputs[0].ename == "ZeroDivisionError"


def test_results_are_read_from_the_outputs():
    assert quickstart.read_results(with_results([ENTRY])) == [ENTRY]
    assert quickstart.read_results(new_notebook(cells=[new_code_cell("1", id="one")])) == []


@pytest.mark.parametrize(("agrees", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_follows_the_agreement(agrees, code, tmp_path, capsys):
    notebook = with_results([ENTRY, {**ENTRY, "agrees": agrees}])
    assert quickstart.conclude(notebook, set(), "", 1.0, tmp_path) == code
    assert ("DIFFERS" in capsys.readouterr().out) != agrees


@pytest.fixture
def child():
    """A process that lives as long as the test."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield psutil.Process(process.pid)
    process.kill()
    process.communicate()


def test_a_process_left_behind_is_named_and_fails_the_run(tmp_path, monkeypatch, capsys, child):
    monkeypatch.setattr(quickstart, "GONE_SECONDS", 0.1)
    assert quickstart.conclude(with_results([ENTRY]), {child}, "", 1.0, tmp_path) == 1
    printed = capsys.readouterr().out
    assert re.search(rf"left behind: {child.pid} \(child of {os.getpid()}\) .*python.* -c input\(\)", printed)


def test_processes_that_were_there_before_the_run_are_not_its_own(child):
    notebook = with_results([ENTRY])
    progress = quickstart.Progress(notebook)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as started:
        found = progress.look()
        started.communicate()
    assert psutil.Process(child.pid) in quickstart.children()
    assert [process.pid for process in found] == [started.pid]


def test_a_cell_is_called_by_its_magic_or_its_name():
    assert quickstart.title(new_code_cell("%%pai_ps -n 2\nx", id="ps")) == "%%pai_ps -n 2"
    assert quickstart.title(new_code_cell("import x", id="tfidf-check")) == "tfidf check"
    assert len(quickstart.title(new_code_cell("%%pai_ps " + "x" * 100, id="ps"))) == quickstart.WIDTH
