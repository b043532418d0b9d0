import re
import time

import nbformat
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.browser]

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


BLOCKING = """
import threading, time
from paibook.metrics import Metric, MetricStream
from paibook.widgets.live import LiveCurves
from paibook.widgets.plot import Plot

stream, stopped = MetricStream("r2"), threading.Event()
live = LiveCurves(stream, "A run", on_stop=stopped.set)
step = 0
while not stopped.is_set():
    stream.append([Metric("", step, "loss", 1 / (1 + step), 0, 0.0)])
    live.tick()
    time.sleep(0.02)  # no await: the kernel's main thread does nothing else
    step += 1
live.finish()
"""
TWICE = """
stream = MetricStream("r3")
names = ["m0", 'm1/<b>grad</b> "n"', *(f"m{k}" for k in range(2, 500))]
stream.append([Metric("", step, name, float(step), 0, 0.0) for step in (3, 1, 1, 2) for name in names])
widget = Plot({"": stream}, "Many").widget()
display(widget, widget)
"""
# Goes on until there is a file "end", and then says in a file what its last step was.
CLOSED = """
import asyncio, pathlib
from paibook.metrics import Metric, MetricStream
from paibook.widgets.live import LiveCurves

stream = MetricStream("r4")
live = LiveCurves(stream, "A run")
step = -1
while not pathlib.Path("end").exists():
    step += 1
    stream.append([Metric("", step, "loss", 1 / (1 + step), 0, 0.0)])
    live.tick()
    await asyncio.sleep(0.02)
live.finish()
pathlib.Path("ending").write_text(str(step))
pathlib.Path("ending").rename("ended")
"""
FORMATS = ("png", "svg", "csv", "parquet")


@pytest.fixture(scope="module")
def lab(jupyterlab):
    lab = jupyterlab.part("curves")
    lab.write("training.ipynb", TRAINING)
    lab.write("blocking.ipynb", BLOCKING, TWICE)
    lab.write("closed.ipynb", CLOSED)
    return lab


def noting(text):
    """Make a note while the cell runs; the result is the time until the kernel had taken it, in milliseconds."""
    return (
        {"do": "fill", "selector": ".pai-note-text", "text": text},
        {"do": "click", "selector": ".pai-noting button"},
        {"do": "wait", "selector": ".pai-notes li"},
        {"do": "attribute", "selector": ".pai-curves", "name": "data-reaction"},
    )


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
        *noting("before the reload"),
        {"do": "drag", "selector": f"{panel} .u-over", "x": 0.2, "to": 0.6},
        {"do": "click", "selector": ".pai-button:has-text('Zoom out')"},
        {"do": "select", "selector": "[aria-label='Horizontal axis']", "value": "time"},
        {"do": "wait", "selector": "[data-axis=time]"},
        {"do": "evaluate", "script": f"document.querySelector('{panel} .pai-plot').focus()"},
        {"do": "press", "key": "Home"},
        {"do": "press", "key": "ArrowRight"},
        {"do": "text", "selector": ".pai-said"},
        {"do": "theme", "dark": True},
        {"do": "changes", "selector": f"{panel} canvas", "times": 2},
        {"do": "theme", "dark": False},
        {"do": "screenshot", "path": str(lab.folder / "curves.png"), "selector": ".pai-curves"},
        # The page is reloaded while the cell runs, then left for a while: the widget resumes from its state.
        {"do": "save"},
        {"do": "open", "url": lab.address("training.ipynb")},
        {"do": "changes", "selector": f"{panel} canvas", "times": 3},
        {"do": "open", "url": f"{lab.url}/api"},
        {"do": "open", "url": lab.address("training.ipynb")},
        {"do": "changes", "selector": f"{panel} canvas", "times": 3},
        {"do": "text", "selector": ".pai-notes li"},
        {"do": "evaluate", "script": "document.querySelector('[aria-label=\"Horizontal axis\"]').value"},
        {"do": "accessible", "selector": ".pai-curves"},
        {"do": "click", "selector": ".pai-stop"},
        {"do": "wait", "selector": "[data-state=finished]"},
    )
    assert visit.widget_problems == []
    assert visit.elsewhere == []
    return [result for result in visit.results if isinstance(result, list)]


def test_curves_are_drawn_while_the_cell_runs(run):
    headings, legend, *_ = run
    assert headings == ["A run", "not finite: NaN at step 5"]
    assert [entry.strip() for entry in legend] == ["mean of 4 ranks"]


def test_the_legend_hides_a_line(run):
    assert run[2] == ["true", "false", "true", "true"]


def test_a_note_is_taken_while_the_cell_runs_and_kept_over_a_reload(run):
    (reaction,) = run[3]
    print(f"the kernel had the note after {reaction} ms")
    assert int(reaction) >= 0
    assert run[5] == [f"{run[5][0].split(':')[0]}: before the reload"]


def test_the_keyboard_reads_values_aloud(run):
    assert re.match(r"loss, [\d.e-]+ s: rank 0 [\d.]+; rank 1", run[4][0])


def test_the_curves_break_no_rule_of_accessibility(run):
    assert run[-1] == []


@pytest.fixture(scope="module")
def blocked(lab):
    """Use the buttons while a cell keeps the kernel's main thread, then look at the picture with its own widget."""
    visit = lab.visit(
        "blocking.ipynb",
        {"do": "run_all"},
        {"do": "changes", "selector": ".pai-panel canvas", "times": 2},
        *noting("while the main thread was busy"),
        {"do": "click", "selector": ".pai-stop"},
        {"do": "idle"},
        {"do": "wait", "selector": ".pai-curves", "count": 2},
        {"do": "wait", "selector": "[data-metric='m1/<b>grad</b> \"n\"'] canvas", "count": 2},
        {"do": "fill", "selector": ".pai-filter", "text": "M499"},
        {"do": "gone", "selector": "[data-metric=m0]"},
        {"do": "count", "selector": ".pai-panel"},
        *(
            {
                "do": "download",
                "selector": "[aria-label=Export]",
                "value": kind,
                "path": str(lab.folder / f"made.{kind}"),
            }
            for kind in FORMATS
        ),
    )
    assert visit.widget_problems == []
    return visit.results


def test_buttons_work_while_the_main_thread_is_blocked(blocked):
    (reaction,) = next(result for result in blocked if isinstance(result, list))
    print(f"the kernel had the note after {reaction} ms, its main thread busy")
    assert int(reaction) >= 0


def test_of_500_metrics_a_filter_finds_one_in_both_views(blocked):
    assert [result for result in blocked if isinstance(result, int)] == [2]


def test_exports_are_downloaded(blocked, lab):
    assert blocked[-4:] == [f"Many.{kind}" for kind in FORMATS]
    begins = {"png": b"\x89PNG", "svg": b"<svg", "csv": b'"run","step","name"', "parquet": b"PAR1"}
    for kind, start in begins.items():
        assert (lab.folder / f"made.{kind}").read_bytes().startswith(start)


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
    shown = [output.data for output in nbformat.read(saved, 4).cells[0].outputs if any(output.get("data", {}).values())]
    assert len(shown) == 1
    assert "application/vnd.jupyter.widget-view+json" not in shown[0]


def test_the_figure_is_there_without_a_kernel(saved, lab):
    lab.end_kernels()
    visit = lab.visit(saved.name, {"do": "wait", "selector": FIGURE}, {"do": "text", "selector": FIGURE})
    assert "loss" in visit.results[-1][0]


def test_the_html_export_shows_the_figure(saved, lab):
    picture = ".jp-RenderedSVG img, .jp-RenderedSVG svg"
    actions = [
        {"do": "open", "url": lab.exported(saved.name).as_uri()},
        {"do": "wait", "selector": picture},
        {"do": "evaluate", "script": f"document.querySelector({picture!r}).getBoundingClientRect().width"},
    ]
    assert lab.browser.visit(actions).results[-1] > 300


@pytest.fixture(scope="module")
def closed(lab):
    """Close the page when the run has begun and the notebook is saved; come back when the run has ended."""
    visit = lab.visit(
        "closed.ipynb",
        {"do": "run_all"},
        {"do": "changes", "selector": ".pai-panel canvas", "times": 2},
        {"do": "unseen", "selector": ".pai-static"},
        {"do": "save"},
    )
    assert visit.widget_problems == []
    (lab.folder / "end").touch()
    deadline = time.monotonic() + 60
    while not (lab.folder / "ended").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    visit = lab.visit(
        "closed.ipynb",
        {"do": "wait", "selector": ".pai-curves[data-state=finished] canvas"},
        {"do": "unseen", "selector": ".pai-static"},
        {"do": "text", "selector": ".pai-values tbody tr:first-child td:last-child"},
    )
    assert visit.widget_problems == []
    return visit.results[-1]


def test_a_page_that_was_closed_for_the_run_shows_all_of_it(closed, lab):
    assert int(closed[0].replace(",", "")) == int((lab.folder / "ended").read_text())


def test_a_notebook_saved_in_mid_run_has_text_where_its_kernel_is_gone(closed, lab):
    for place, texts in lab.without_kernel("closed.ipynb").items():
        assert any(re.search(r"loss +1 ", text) for text in texts), place
        assert not any("model not found" in text or "Loading widget" in text for text in texts), place
