"""The panels of GPUs, cluster and runs in JupyterLab. A fake NVML library is loaded in place of the real one."""

import json
import os
from pathlib import Path

import nbformat
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.browser]

REPOSITORY = Path(__file__).parents[2]
GPUS, CLUSTER, RUNS = ("[data-panel=GPUs]", "[data-panel=Cluster]", "[data-panel=Runs]")
WORK = """%%pai_allreduce -n 2 --name falling
for step in range(30):
    pai.log(step=step, loss=1 / (1 + step))
print("fell")"""
LOADED = """cards = json.loads(file.read_text())
cards[1] |= {"load": 87, "used": 100 * 2**30}
cards[2]["lost"] = True
_ = file.write_text(json.dumps(cards))"""
# Never awaits, and works until the last run of the history is deleted.
BUSY = """import time
from paibook.session import current
load = 0
while list(current().history):
    load = (load + 1) % 100
    cards = json.loads(file.read_text())
    cards[0]["load"] = load
    new = file.with_suffix(".new")
    _ = new.write_text(json.dumps(cards)), new.replace(file)
    time.sleep(0.05)
"""
# Opens a run's log; the result is the time until it is there, in milliseconds.
REACTION = f"""new Promise((done) => {{
  const root = document.querySelector("{RUNS}");
  const pressed = performance.now();
  new MutationObserver((_, observer) => {{
    if (!root.querySelector(".pai-log")) return;
    observer.disconnect();
    done(Math.round(performance.now() - pressed));
  }}).observe(root, {{ childList: true, subtree: true }});
  root.querySelector("[data-key^=log-]").click();
}})"""
LOAD = f"""document.querySelector("{GPUS} [data-card='0'] td:nth-child(4)").innerText"""
CHANGED = f"""new Promise((done) => {{
  const before = {LOAD};
  const look = () => ({LOAD} === before ? setTimeout(look, 20) : done([before, {LOAD}]));
  look();
}})"""
CELLS = [
    'import json, os, pathlib\nfile = pathlib.Path(os.environ["FAKE_NVML"])\n%load_ext paibook',
    "%pai_gpus",
    WORK,
    "%pai_cluster",
    "%pai_runs",
    LOADED,
]


@pytest.fixture(scope="module")
def lab(jupyterlab, tmp_path_factory):
    folder = tmp_path_factory.mktemp("panels")
    cards = folder / "cards.json"
    cards.write_text(json.dumps([{"uuid": f"GPU-{i}", "load": 12, "used": 30 * 2**30} for i in range(3)]))
    roots = [REPOSITORY / "tests" / "fake_nvml", REPOSITORY, REPOSITORY / "magics", REPOSITORY / "kernels"]
    environment = {
        "PYTHONPATH": os.pathsep.join(map(str, roots)),
        "FAKE_NVML": str(cards),
        "PAIBOOK_RUNS": str(folder / "runs"),
        "PAIBOOK_LEASES": str(folder / "leases"),
        "PAIBOOK_WORKERS": "2",
    }
    lab = jupyterlab.part("panels", environment)
    lab.write("panels.ipynb", *CELLS)
    lab.write("busy.ipynb", CELLS[0], WORK, "%pai_gpus", "%pai_runs", BUSY)
    return lab


@pytest.fixture(scope="module")
def seen(lab, tmp_path_factory):
    """Run the notebook, watch the panels change, pick cards, write them into the cell, open a log, delete a run."""
    shots = Path(os.environ.get("PAIBOOK_SHOTS") or tmp_path_factory.mktemp("shots"))
    visit = lab.visit(
        "panels.ipynb",
        {"do": "run_all"},
        {"do": "wait", "selector": f"{GPUS} [data-card='2']"},
        {"do": "idle"},
        {"do": "unseen", "selector": ".pai-static"},
        # The page asks by itself: the cards have changed since the panel was shown.
        {"do": "wait", "selector": f"{GPUS} [data-card='1'] .pai-gauge-text:has-text('87%')"},
        {"do": "text", "selector": f"{GPUS} [data-card='2'] td"},
        {"do": "click", "selector": f"{GPUS} [data-key=add]"},
        {"do": "click", "selector": f"{GPUS} [data-key=add]"},
        {"do": "click", "selector": f"{GPUS} [data-key=pick-1-0]"},
        {"do": "click", "selector": f"{GPUS} [data-key=pick-1-1]"},
        {"do": "wait", "selector": f"{GPUS} .pai-words:has-text('-n 2 -g 1 --cards 0,0')"},
        {"do": "click", "selector": f"{GPUS} [data-key=write]"},
        {"do": "wait", "selector": ".cm-line:has-text('--cards 0,0')"},
        {"do": "text", "selector": ".cm-line:has-text('%%pai_allreduce')"},
        {"do": "wait", "selector": f"{CLUSTER} [data-rank='worker 1']"},
        {"do": "text", "selector": f"{CLUSTER} [data-rank='worker 1'] td"},
        {"do": "click", "selector": f"{RUNS} [data-key^=log-]"},
        {"do": "wait", "selector": f"{RUNS} .pai-log"},
        {"do": "text", "selector": f"{RUNS} .pai-log"},
        {"do": "count", "selector": f"{RUNS} .pai-spark"},
        {"do": "size", "width": 1280, "height": 1900},
        {"do": "screenshot", "path": str(shots / "light.png")},
        {"do": "screenshot", "path": str(shots / "gpus.png"), "selector": GPUS},
        {"do": "theme", "dark": True},
        {"do": "evaluate", "script": "new Promise((done) => setTimeout(done, 1500))"},
        {"do": "screenshot", "path": str(shots / "dark.png")},
        {"do": "theme", "dark": False},
        {"do": "save"},
        *({"do": "accessible", "selector": panel} for panel in (GPUS, CLUSTER, RUNS)),
        {"do": "click", "selector": f"{RUNS} [data-key^=delete-]"},
        {"do": "click", "selector": f"{RUNS} [data-key^=delete-]:has-text('Really')"},
        {"do": "wait", "selector": f"{RUNS} .pai-none"},
    )
    assert visit.widget_problems == []
    assert visit.elsewhere == []
    return [result for result in visit.results if isinstance(result, (list, int))]


def test_a_card_that_vanished_is_said_to_be_gone(seen):
    assert seen[0][:3] == ["2", "NVIDIA H200", "no longer answers"]


def test_the_picks_are_written_into_the_cell(seen):
    assert seen[1] == ["%%pai_allreduce -n 2 -g 1 --cards 0,0 --name falling"]


def test_ranks_are_shown_with_state_and_memory(seen):
    assert seen[2][:2] == ["worker 1", "idle"]
    assert seen[2][4].endswith("iB")


def test_a_run_has_a_curve_and_a_log(seen):
    assert "fell" in seen[3][0]
    assert seen[4] == 1


def test_the_panels_break_no_rule_of_accessibility(seen):
    assert seen[5:] == [[], [], []]


def test_the_static_tables_are_there_without_a_kernel(seen, lab):
    shots = os.environ.get("PAIBOOK_SHOTS")
    shot = [{"do": "screenshot", "path": f"{shots}/reopened.png"}] if shots else []
    for place, texts in lab.without_kernel("panels.ipynb", *shot).items():
        assert any("NVIDIA H200" in text for text in texts), place
        assert any("falling" in text for text in texts), place
        assert not any("model not found" in text or "Loading widget" in text for text in texts), place


def test_the_saved_notebook_holds_static_tables(seen, lab):
    notebook = nbformat.read(lab.folder / "panels.ipynb", 4)
    outputs = [output.data for cell in notebook.cells for output in cell.get("outputs", ()) if "data" in output]
    tables = [data["text/html"] for data in outputs if "text/html" in data and "<table" in data["text/html"]]
    assert any("NVIDIA H200" in table for table in tables)
    assert any("falling" in table for table in tables)


def test_panels_live_while_a_cell_keeps_the_main_thread(seen, lab):
    visit = lab.visit(
        "busy.ipynb",
        {"do": "run_all"},
        {"do": "wait", "selector": f"{RUNS} [data-key^=log-]"},
        {"do": "wait", "selector": ".jp-InputArea-prompt:has-text('[*]')"},
        {"do": "evaluate", "script": CHANGED},
        {"do": "evaluate", "script": CHANGED},
        {"do": "evaluate", "script": REACTION},
        {"do": "click", "selector": f"{RUNS} [data-key^=delete-]"},
        {"do": "click", "selector": f"{RUNS} [data-key^=delete-]:has-text('Really')"},
        {"do": "idle"},
    )
    assert visit.widget_problems == []
    first, second, reaction = visit.results[5:8]
    assert len({*first, *second}) >= 3
    print(f"the log was there {reaction} ms after the click, the kernel's main thread busy")
    assert reaction >= 0
