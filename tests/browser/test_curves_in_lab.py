import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from lab import browse, running_lab

pytestmark = [pytest.mark.slow, pytest.mark.browser]

REPOSITORY = Path(__file__).parents[2]
FIGURE = ".jp-RenderedVegaCommon5 svg, .jp-OutputArea-output svg.marks"
TRAINING = """
import asyncio, math
from paibook.metrics import Metric, MetricStream
from paibook.widgets.live import LiveCurves

stream, stopped, loop = MetricStream("r1"), asyncio.Event(), asyncio.get_running_loop()
live = LiveCurves(stream, "A run", on_stop=lambda: loop.call_soon_threadsafe(stopped.set))
step = 0
while not stopped.is_set():
    stream.append([Metric("", step, "loss", math.exp(-step / 30) * (1 + rank / 9), rank, 0.0) for rank in range(4)])
    stream.append([Metric("", step, "accuracy", math.nan if step == 5 else 1 - math.exp(-step / 30), 0, 0.0)])
    live.tick()
    await asyncio.sleep(0.02)
    step += 1
live.finish()
print("stopped by a click")
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebooks")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(TRAINING)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "training.ipynb")
    with running_lab(folder, {"PYTHONPATH": str(REPOSITORY)}) as lab:
        yield lab


@pytest.fixture(scope="module")
def run(lab):
    """Run the notebook in JupyterLab, watch, switch, reload, stop and save; the texts seen on the way."""
    panel = "[data-metric=loss]"
    visit = lab.visit(
        "training.ipynb",
        {"do": "run_all"},
        {"do": "wait", "selector": ".pai-panel canvas", "count": 2},
        {"do": "changes", "selector": f"{panel} canvas", "times": 3},
        {"do": "text", "selector": ".pai-title, .pai-note:not(:empty)"},
        {"do": "text", "selector": f"{panel} .pai-entry"},
        {"do": "click", "selector": ".pai-button:has-text('By rank')"},
        {"do": "wait", "selector": f"{panel} .pai-entry", "count": 4},
        {"do": "click", "selector": ".pai-button:has-text('Log scale')"},
        {"do": "click", "selector": f"{panel} .pai-entry", "nth": 1},
        {"do": "changes", "selector": f"{panel} canvas", "times": 3},
        {"do": "attribute", "selector": f"{panel} .pai-entry", "name": "aria-pressed"},
        {"do": "theme", "dark": True},
        {"do": "changes", "selector": f"{panel} canvas", "times": 2},
        {"do": "theme", "dark": False},
        # The page is reloaded while the cell runs: the widget resumes from its state.
        {"do": "save"},
        {"do": "open", "url": f"{lab.url}/doc/tree/training.ipynb?reset"},
        {"do": "changes", "selector": f"{panel} canvas", "times": 3},
        {"do": "click", "selector": ".pai-stop"},
        {"do": "wait", "selector": "[data-state=finished]"},
    )
    assert visit.widget_problems == []
    assert visit.elsewhere == []
    return [result for result in visit.results if isinstance(result, list)]


def test_curves_are_drawn_while_the_cell_runs(run):
    headings, legend, _ = run
    assert headings == ["A run", "not finite: NaN at step 5"]
    assert [entry.strip() for entry in legend] == ["mean of 4 ranks"]


def test_the_legend_hides_a_line(run):
    assert run[2] == ["true", "false", "true", "true"]


@pytest.fixture(scope="module")
def saved(lab):
    """Run again without a reload, stop, and save what the finished cell shows."""
    visit = lab.visit(
        "training.ipynb",
        {"do": "run_all"},
        {"do": "changes", "selector": ".pai-panel canvas", "times": 2},
        {"do": "click", "selector": ".pai-stop"},
        {"do": "gone", "selector": ".pai-curves"},
        {"do": "wait", "selector": FIGURE},
        {"do": "idle"},
        {"do": "text", "selector": ".jp-OutputArea-output pre"},
        {"do": "save"},
    )
    assert visit.widget_problems == []
    assert visit.elsewhere == []
    assert [text.strip() for text in visit.results[-2]] == ["stopped by a click"]
    return lab.folder / "training.ipynb"


def test_the_figure_takes_the_widgets_place_in_the_saved_notebook(saved):
    shown = [output.data for output in nbformat.read(saved, 4).cells[0].outputs if "data" in output]
    assert len(shown) == 1
    assert "application/vnd.jupyter.widget-view+json" not in shown[0]


def test_the_figure_is_there_without_a_kernel(saved, lab):
    notebook = nbformat.read(saved, 4)
    notebook.metadata.kernelspec = {"name": "gone", "display_name": "Gone", "language": "python"}
    nbformat.write(notebook, lab.folder / "reopened.ipynb")
    visit = lab.visit("reopened.ipynb", {"do": "wait", "selector": FIGURE}, {"do": "text", "selector": FIGURE})
    assert "loss" in visit.results[-1][0]


def test_the_html_export_shows_the_figure(saved):
    subprocess.run([sys.executable, "-m", "nbconvert", "--to", "html", str(saved)], check=True, capture_output=True)
    picture = ".jp-RenderedSVG img, .jp-RenderedSVG svg"
    actions = [
        {"do": "open", "url": saved.with_suffix(".html").as_uri()},
        {"do": "wait", "selector": picture},
        {"do": "evaluate", "script": f"document.querySelector({picture!r}).getBoundingClientRect().width"},
    ]
    assert browse(actions).results[-1] > 300
