"""The explainer in JupyterLab: it follows a running cell, is paused, stepped and played, and stays in what is saved."""

import os
from pathlib import Path

import nbformat
import pytest
from lab import running_lab

pytestmark = [pytest.mark.slow, pytest.mark.browser]

REPOSITORY = Path(__file__).parents[2]
PLAYER = ".pai-explainer[data-mode]"
SHOWN = f"{PLAYER}[data-number]"
WORK = """%%pai_mapreduce -i lines --reducers 4 --explain
import pathlib, time
folder = pathlib.Path(FOLDER)

def map(line):
    # The last task waits until the player has been tried.
    while line == "the last line" and not (folder / "go").exists():
        time.sleep(0.05)
    for word in line.split():
        yield word, 1

def reduce(word, counts):
    yield word, sum(counts)"""


def notebook(cells):
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    made.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return made


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebooks")
    first = (
        "%load_ext paibook\nlines = ['the quick brown fox'] * 30 + ['jumps over the lazy dog'] * 9 + ['the last line']"
    )
    cells = [first, WORK.replace("FOLDER", repr(str(folder))), "%pai_explain"]
    nbformat.write(notebook(cells), folder / "explained.ipynb")
    environment = {
        "PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "magics", REPOSITORY / "kernels"))),
        "PAIBOOK_RUNS": str(folder / "runs"),
        "PAIBOOK_WORKERS": "2",
    }
    with running_lab(folder, environment) as lab:
        yield lab


def number():
    """The number of the picture shown."""
    return {"do": "attribute", "selector": SHOWN, "name": "data-number"}


def press(name):
    return {"do": "click", "selector": f"{PLAYER} [data-do={name}]"}


def until(script):
    """Wait for what the page comes to."""
    return {
        "do": "evaluate",
        "script": "new Promise((done, fail) => { const late = Date.now() + 60000; const look = () => ("
        + script
        + ") ? done() : Date.now() > late ? fail(new Error('it did not come')) : setTimeout(look, 20); look(); })",
    }


@pytest.fixture(scope="module")
def seen(lab, tmp_path_factory):
    """Run the cells; pause, step and follow while the first one runs, then play it again."""
    shots = Path(os.environ.get("PAIBOOK_SHOTS") or tmp_path_factory.mktemp("shots"))
    root = f"document.querySelector('{PLAYER}')"
    file = "{type: 'file', format: 'text', content: ''}"
    go = f"fetch('{lab.url}/api/contents/go?token={lab.token}', {{method: 'PUT', body: JSON.stringify({file})}})"
    visit = lab.visit(
        "explained.ipynb",
        {"do": "size", "width": 1500, "height": 1600},
        {"do": "run_all"},
        {"do": "wait", "selector": f"{PLAYER}[data-mode=live] svg"},
        # Every task but one is done; that one waits.
        {"do": "wait", "selector": f"{PLAYER} .pai-marked .pai-at:has-text('map')"},
        until(f"{root}.querySelector('.pai-picture td + td')?.textContent.startsWith('7/8')"),
        {"do": "screenshot", "path": str(shots / "live.png"), "selector": PLAYER},
        press("back"),
        {"do": "wait", "selector": f"{PLAYER}[data-mode=paused]"},
        press("first"),
        until(f"{root}.dataset.number === '0'"),
        {"do": "text", "selector": f"{PLAYER} .pai-state"},
        {"do": "text", "selector": f"{PLAYER} .pai-said"},
        press("live"),
        until(f"Number({root}.dataset.number) > 2 && {root}.dataset.mode === 'live'"),
        {"do": "evaluate", "script": go},
        # The first player's: the second one, which opens when the run is done, says so at once.
        until(f"{root}.querySelector('.pai-state').dataset.state === 'done'"),
        {"do": "idle"},
        {"do": "select", "selector": f"{PLAYER} select", "value": "0.5"},
        press("play"),
        until(f"{root}.dataset.mode === 'playing' && Number({root}.dataset.number) > 2"),
        press("play"),
        {"do": "attribute", "selector": PLAYER, "name": "data-mode"},
        {"do": "evaluate", "script": f"{root}.querySelector('.pai-picture').focus()"},
        {"do": "press", "key": "End"},
        until(f"{root}.querySelector('.pai-picture tbody tr:last-child td + td').textContent === '4/4'"),
        {"do": "text", "selector": f"{PLAYER} .pai-marked"},
        {"do": "press", "key": "Home"},
        {"do": "press", "key": "ArrowRight"},
        until(f"{root}.dataset.number === '1'"),
        {"do": "press", "key": "ArrowLeft"},
        until(f"{root}.dataset.number === '0'"),
        {"do": "press", "key": "End"},
        {"do": "wait", "selector": ".pai-explainer[data-number]", "count": 2},
        # The pictures that stand for the players without a kernel are there, and hidden.
        {
            "do": "evaluate",
            "script": "[...document.querySelectorAll('.pai-static')].map((node) => node.offsetHeight > 0)",
        },
        {"do": "screenshot", "path": str(shots / "light.png")},
        {"do": "theme", "dark": True},
        {"do": "evaluate", "script": "new Promise((done) => setTimeout(done, 500))"},
        {"do": "screenshot", "path": str(shots / "dark.png")},
        {"do": "screenshot", "path": str(shots / "dark-player.png"), "selector": PLAYER},
        {"do": "theme", "dark": False},
        {"do": "save"},
        seconds=90,
    )
    assert visit.widget_problems == []
    assert visit.elsewhere == []
    return [result for result in visit.results if result]


def test_pausing_the_player_does_not_pause_the_run(seen):
    assert seen[0] == ["running"]
    assert seen[2][0] == "paused"


def test_a_step_is_told_to_a_screen_reader(seen):
    assert seen[1][0].startswith("picture 1 of ")
    assert "map: 0/8 tasks" in seen[1][0]


def test_the_line_of_the_function_at_work_is_marked(seen):
    assert seen[3][0] == "def reduce(word, counts):reduce"


def test_the_last_picture_is_in_the_saved_notebook_and_hidden_behind_the_player(seen, lab):
    assert seen[4] == [False, False]
    saved = nbformat.read(lab.folder / "explained.ipynb", 4)
    kept = [output.data for cell in saved.cells for output in cell.outputs if "pai-static" in str(output.get("data"))]
    assert len(kept) == 2
    for data in kept:
        assert "</svg>" in data["text/html"]
        assert "reduce: 4/4 tasks" in data["text/plain"]
