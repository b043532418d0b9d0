import os
import re

import nbformat
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.browser]

MODEL = """
%load_ext paibook
from typing import Literal
import paibook as pai

class Schedule(pai.HyperParameters):
    warmup: int = pai.between(0, 100, default=10, step=5, description="steps until the rate is reached")
    kind: Literal["cosine", "linear", "none"] = "cosine"

class Adam(pai.HyperParameters):
    lr: float = pai.between(1e-5, 1.0, default=0.1, log=True)
    batch_size: int = pai.between(8, 512, default=64, step=8)
    optimizer: Literal["sgd", "adam"] = "adam"
    nesterov: bool = False
    name: str = "baseline"
    schedule: Schedule = Schedule()
"""
CELL = """%%pai_allreduce -n 2 --hp Adam lr=0.2
if rank == 0:
    pai.log(step=1, loss=hp.lr)
    print("got", hp.lr, hp.optimizer, hp.schedule.warmup)
"""


def field(path):
    return f".pai-field[data-path='{path}']"


@pytest.fixture(scope="module")
def lab(jupyterlab, tmp_path_factory):
    environment = {"PAIBOOK_CLUSTER": "inline", "PAIBOOK_RUNS": str(tmp_path_factory.mktemp("runs"))}
    lab = jupyterlab.part("hyperparameters", environment)
    lab.write("form.ipynb", MODEL, CELL, "%pai_hp")
    return lab


@pytest.fixture(scope="module")
def visit(lab):
    """Fill in the form, wrongly first, reload, run with the values, keep the table; what was seen on the way."""
    lr, pictures = field("lr"), os.environ.get("PAIBOOK_PICTURES")
    settle = {"do": "evaluate", "script": "new Promise((done) => setTimeout(done, 1500))"}  # JupyterLab fades out

    def look(name):
        return [settle, {"do": "screenshot", "path": f"{pictures}/{name}.png"}] if pictures else []

    visit = lab.visit(
        "form.ipynb",
        {"do": "run_all"},
        {"do": "wait", "selector": ".pai-form"},
        {"do": "idle"},
        {"do": "text", "selector": ".pai-form .pai-status, .pai-form legend"},
        {"do": "fill", "selector": f"{lr} .pai-input", "value": "7"},
        {"do": "fill", "selector": f"{field('batch_size')} .pai-input", "value": "lots"},
        {"do": "wait", "selector": ".pai-status:has-text('2 to correct')"},
        {"do": "text", "selector": ".pai-field .pai-error:not(:empty)"},
        {"do": "attribute", "selector": ".pai-form .pai-run", "name": "disabled"},
        *look("form-wrong"),
        {"do": "fill", "selector": f"{lr} .pai-input", "value": "0.05"},
        {"do": "fill", "selector": f"{field('batch_size')} .pai-input", "value": "64"},
        {"do": "select", "selector": f"{field('optimizer')} select", "label": "sgd"},
        {"do": "click", "selector": f"{field('nesterov')} input"},
        {"do": "evaluate", "script": SLIDE},
        {"do": "wait", "selector": ".pai-line:has-text('schedule.warmup=50')"},
        {"do": "text", "selector": ".pai-line, .pai-form .pai-status"},
        *look("form-light"),
        {"do": "theme", "dark": True},
        *look("form-dark"),
        {"do": "theme", "dark": False},
        {"do": "click", "selector": ".pai-form .pai-run"},
        {"do": "wait", "selector": ".jp-OutputArea-output pre:has-text('got 0.05 sgd 50')"},
        {"do": "wait", "selector": ".pai-status:has-text('same as run')"},
        # The page is reloaded: what was entered is in the widget's state, and so is how a run ends.
        {"do": "save"},
        {"do": "open", "url": lab.address("form.ipynb")},
        {"do": "wait", "selector": ".pai-line:has-text('schedule.warmup=50')"},
        {"do": "fill", "selector": f"{lr} .pai-input", "value": "0.25"},
        {"do": "click", "selector": ".pai-form .pai-run"},
        {"do": "wait", "selector": ".pai-result:has-text('loss 0.25')"},
        {"do": "text", "selector": ".pai-result"},
        {"do": "accessible", "selector": ".pai-form"},
    )
    assert visit.widget_problems == []
    assert visit.elsewhere == []
    return [result for result in visit.results if isinstance(result, list)]


SLIDE = f"""(() => {{
  const slider = document.querySelector("{field("schedule.warmup")} .pai-slider");
  slider.value = 500;
  slider.dispatchEvent(new Event("input"));
}})()"""
LINE = "--hp Adam lr=0.05 optimizer=sgd nesterov=true schedule.warmup=50"


def test_the_form_shows_the_model_and_what_the_last_run_used(visit):
    status, legend = visit[0]
    assert status.startswith("same as run ")
    assert legend == "schedule"


def test_what_is_wrong_is_said_in_place_and_cannot_be_run(visit):
    assert visit[1] == [
        "Input should be less than or equal to 1",
        "Input should be a valid integer, unable to parse string as an integer",
    ]
    assert visit[2] == [""]


def test_the_magic_line_follows_the_form(visit):
    status, line = visit[3]
    assert "4 differ from run " in status
    assert line == LINE


def test_run_with_these_runs_the_cell_and_says_how_it_ended(visit):
    assert re.fullmatch(r"run \w+ done, [\d.]+ s · loss 0\.25", visit[4][0])


def test_the_form_breaks_no_rule_of_accessibility(visit):
    assert visit[-1] == []


def test_a_saved_form_is_a_table_where_its_kernel_is_gone(visit, lab):
    for place, texts in lab.without_kernel("form.ipynb").items():
        assert any("schedule.warmup" in text and "--hp Adam lr=0.05" in text for text in texts), place
        assert not any("model not found" in text or "Loading widget" in text for text in texts), place


def test_the_table_takes_the_forms_place_in_the_saved_notebook(visit, lab):
    again = lab.visit(
        "form.ipynb",
        {"do": "run_all"},
        {"do": "wait", "selector": ".pai-form"},
        {"do": "idle"},
        {"do": "click", "selector": ".pai-button:has-text('Keep as a table')"},
        {"do": "gone", "selector": ".pai-form"},
        {"do": "wait", "selector": ".jp-RenderedHTML td:has-text('baseline')"},
        {"do": "save"},
    )
    assert again.widget_problems == []
    output, empty = nbformat.read(lab.folder / "form.ipynb", 4).cells[2].outputs
    assert not any(empty.data.values())
    assert "application/vnd.jupyter.widget-view+json" not in output.data
    assert "--hp Adam lr=0.2" in output.data["text/plain"]
