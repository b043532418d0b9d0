import os

import nbformat
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.browser]

MODEL = """
%load_ext paibook
import paibook as pai
adam = {"lr": pai.between(1e-4, 1.0, default=0.1, log=True), "batch_size": pai.between(8, 128, default=64, step=8),
        "optimizer": pai.choice("adam", "sgd"), "mark": "first"}
"""
SEARCH = """%%pai_search --trials 8 --seed 3 --jobs 2 --pruner none --study first -o best
%%pai_allreduce -n 1 --hp adam
import math, pathlib, time
mark = pathlib.Path(hp.mark)
first = not mark.exists()
mark.touch()
for step in range(1, 4000 if first else 16):
    far = abs(math.log10(hp.lr) + 1.5) + (hp.optimizer == "sgd") + abs(hp.batch_size - 48) / 200
    pai.log(step=step, loss=far / 4 + math.exp(-step / 4))
    time.sleep(0.02)
"""
FIGURE = ".jp-RenderedVegaCommon5 svg, .jp-OutputArea-output svg.marks"


@pytest.fixture(scope="module")
def lab(jupyterlab, tmp_path_factory):
    environment = {"PAIBOOK_CLUSTER": "inline", "PAIBOOK_RUNS": str(tmp_path_factory.mktemp("runs"))}
    lab = jupyterlab.part("study", environment)
    lab.write("study.ipynb", MODEL, SEARCH)
    return lab


@pytest.fixture(scope="module")
def visit(lab):
    """Watch a study, reload, stop the trial that never ends, and save what stays."""
    pictures = os.environ.get("PAIBOOK_PICTURES")
    settle = {"do": "evaluate", "script": "new Promise((done) => setTimeout(done, 1500))"}  # JupyterLab fades out

    def look(name):
        return [settle, {"do": "screenshot", "path": f"{pictures}/{name}.png"}] if pictures else []

    visit = lab.visit(
        "study.ipynb",
        {"do": "run_all"},
        {"do": "wait", "selector": ".pai-trials tbody tr", "count": 5},
        {"do": "wait", "selector": ".pai-bars"},
        {"do": "text", "selector": ".pai-study .pai-panel-head, .pai-trials thead th"},
        *look("study-light"),
        {"do": "theme", "dark": True},
        *look("study-dark"),
        {"do": "theme", "dark": False},
        # The page is reloaded while the study goes on: the view resumes from its state.
        {"do": "save"},
        {"do": "open", "url": lab.address("study.ipynb")},
        {"do": "wait", "selector": ".pai-status:has-text('7 of 8 trials · 1 running')"},
        {"do": "scroll", "selector": ".pai-trials [data-trial='1']"},
        {"do": "hover", "selector": ".pai-trials [data-trial='1'] th"},
        {"do": "wait", "selector": ".pai-drawing .pai-marked"},
        {"do": "count", "selector": ".pai-drawing .pai-marked"},
        {"do": "accessible", "selector": ".pai-study"},
        {"do": "click", "selector": ".pai-trials [data-state=running] .pai-stop"},
        {"do": "wait", "selector": ".pai-trials [data-state=stopped]"},
        {"do": "wait", "selector": ".pai-study[data-state=finished]"},
        {"do": "text", "selector": ".pai-study .pai-status"},
    )
    assert visit.widget_problems == []
    assert visit.elsewhere == []
    return visit.results


def test_the_view_shows_the_study_while_it_goes_on(visit):
    texts = next(result for result in visit if isinstance(result, list))
    assert texts[:3] == [
        "loss by trial, and the best so far",
        "Hyperparameters of each trial",
        "Importance (PED-ANOVA)",
    ]
    assert texts[3:] == ["trial", "state", "", "loss", "lr", "batch_size", "optimizer", "time", ""]


def test_the_view_breaks_no_rule_of_accessibility(visit):
    assert [result for result in visit if isinstance(result, list)][1] == []


def test_a_row_marks_its_trial_in_both_pictures(visit):
    assert next(result for result in visit if isinstance(result, int)) == 2


def test_one_trial_was_stopped_and_the_study_went_on(visit):
    assert visit[-1][0].startswith("finished · 8 of 8 trials")
    assert "1 stopped" in visit[-1][0]


def test_a_study_saved_while_it_went_on_is_text_where_its_kernel_is_gone(visit, lab):
    for place, texts in lab.without_kernel("study.ipynb").items():
        assert any("of 8 trials" in text and "batch_size" in text for text in texts), place
        assert not any("model not found" in text or "Loading widget" in text for text in texts), place


def test_a_figure_takes_the_views_place_in_the_saved_notebook(visit, lab):
    notebook = nbformat.read(lab.folder / "study.ipynb", 4)
    notebook.cells[1].source = notebook.cells[1].source.replace("first -o", "second -o")
    nbformat.write(notebook, lab.folder / "again.ipynb")
    pictures = os.environ.get("PAIBOOK_PICTURES")
    again = lab.visit(
        "again.ipynb",
        {"do": "run_all"},
        {"do": "wait", "selector": FIGURE},
        {"do": "idle"},
        {"do": "text", "selector": FIGURE},
        *([{"do": "screenshot", "path": f"{pictures}/study-kept.png"}] if pictures else []),
        {"do": "save"},
    )
    assert again.widget_problems == []
    (texts,) = [result for result in again.results if isinstance(result, list)]
    assert "8 of 8 trials" in texts[0]
    outputs = nbformat.read(lab.folder / "again.ipynb", 4).cells[1].outputs
    shown = [output.data for output in outputs if any(output.get("data", {}).values())]
    assert len(shown) == 1
    assert "image/svg+xml" in shown[0]
    assert "application/vnd.jupyter.widget-view+json" not in shown[0]
