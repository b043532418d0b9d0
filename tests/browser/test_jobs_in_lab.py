"""JupyterLab's "Create notebook job" dialog over paibook's jobs, and a job watched from a notebook while it runs."""

import contextlib
import json
import os
from pathlib import Path

import nbformat
import pytest
from lab import running_lab

from paibook.errors import PaibookError
from paibook.jobs import actions
from paibook.jobs.store import JobStore

pytest.importorskip("jupyter_scheduler")
pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(900)]

PATIENCE = 200  # seconds for a step: jobs start kernels, and the machine may be busy
ROOT = Path(__file__).parents[2]
JOBS = "[data-panel=Jobs]"
TRAINING = """%%pai_allreduce -n 1 --name trained
import pathlib, time
step = 0
while not pathlib.Path({gate!r}).exists():
    pai.log(step=step, loss=1 / (1 + step / 100))
    step += 1
    time.sleep(0.02)
print("trained")"""
FIND = """from paibook.jobs.store import JobStore
from paibook.settings import settings
job, = [run.id for run in JobStore(settings().jobs).runs() if run.job.notebook.endswith("training.ipynb")]"""
NOTEBOOKS = {
    "training": ["print('begun')", TRAINING],
    "failing": ["print('so far')", "1 / 0"],
    "watching": ["%load_ext paibook", "%pai_jobs", FIND, "%pai_runs attach $job"],
}
CONFIG = {
    "SchedulerApp": {
        "scheduler_class": "paibook.jobs.lab.scheduler.PaiScheduler",
        "environment_manager_class": "paibook.jobs.lab.environments.PaiEnvironmentManager",
    },
    "PaiTaskRunner": {"poll_interval": 1},
}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Where jobs and runs are kept."""
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def lab(elsewhere, tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebooks")
    for name, sources in NOTEBOOKS.items():
        texts = [source.format(gate=str(folder / "gate")) if source is TRAINING else source for source in sources]
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in texts])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, folder / f"{name}.ipynb")
    database = {"db_url": f"sqlite:///{elsewhere / 'scheduler.sqlite'}"}
    config = {**CONFIG, "SchedulerApp": {**CONFIG["SchedulerApp"], **database}}
    (elsewhere / "jupyter_server_config.json").write_text(json.dumps(config))
    environment = {
        "PYTHONPATH": os.pathsep.join(str(ROOT / root) for root in (".", "magics", "kernels")),
        "JUPYTER_CONFIG_PATH": str(elsewhere),
        "JUPYTER_DATA_DIR": str(elsewhere / "data"),
        "JUPYTER_PATH": str(ROOT / "extensions" / "lab"),
        "PAIBOOK_RUNS": str(elsewhere / "runs"),
        "PAIBOOK_JOBS": str(elsewhere / "jobs"),
    }
    with running_lab(folder, environment) as lab:
        yield lab
        # Runs outlive the server.
        store = JobStore(elsewhere / "jobs")
        for run in store.runs(states=("queued", "running")):
            with contextlib.suppress(PaibookError):  # it has ended meanwhile
                actions.stop(store, run.id)


def look(name, selector=None):
    """Pictures for people, where a folder for them is named."""
    shots = os.environ.get("PAIBOOK_SHOTS")
    settle = {"do": "evaluate", "script": "new Promise((done) => setTimeout(done, 1500))"}
    return [settle, {"do": "screenshot", "path": f"{shots}/{name}.png", "selector": selector}] if shots else []


def create(notebook, name, *between):
    """Make a job of the notebook that is open, by the dialog, which takes what the file browser has selected."""
    return (
        {"do": "click", "selector": ".lm-TabBar-tab[data-id=filebrowser]"},
        {"do": "click", "selector": f".jp-DirListing-item:has-text('{notebook}') .jp-DirListing-itemText"},
        {"do": "click", "selector": ".jp-Toolbar-item[data-jp-item-name=create-job]"},
        # When the environments come, the dialog forgets what was entered before.
        {"do": "wait", "selector": ".jp-create-job-form :text('HTML')"},
        {"do": "fill", "selector": "#jp-create-job-jobName", "value": name},
        *between,
        {"do": "click", "selector": ".jp-create-job-form button:has-text('Create')"},
        {"do": "wait", "selector": f".jp-notebook-jobs-panel tr:has-text('{name}')"},
    )


@pytest.fixture(scope="module")
def created(lab):
    """Schedule both notebooks from the dialog, and see the one that fails fail."""
    options = (
        {"do": "click", "selector": ".jp-create-job-form .MuiAccordionSummary-root"},
        option("cluster", "inline"),
        option("workers", "many"),
        {"do": "wait", "selector": ".jp-create-job-form button[disabled]:has-text('Create')"},
        {"do": "text", "selector": "#pai-option-workers-helper-text"},
        *look("options-wrong"),
        option("workers", "1"),
        {"do": "theme", "dark": True},
        *look("options-dark"),
        {"do": "theme", "dark": False},
    )
    form = lab.visit("training.ipynb", *create("training.ipynb", "my training", *options), seconds=PATIENCE)
    failed = ".jp-notebook-jobs-panel tr:has-text('my failure'):has-text('Failed')"
    visit = lab.visit(
        "failing.ipynb",
        *create("failing.ipynb", "my failure"),
        {"do": "evaluate", "script": RELOAD.format(selector=failed)},
        *look("failed"),
        {"do": "click", "selector": f"{failed} a"},
        {"do": "wait", "selector": ".MuiAlert-message"},
        {"do": "text", "selector": ".MuiAlert-message"},
        seconds=PATIENCE,
    )
    return [result for result in (*form.results, *visit.results) if isinstance(result, list)]


def option(name, value):
    return {"do": "fill", "selector": f"#pai-option-{name}", "value": value}


@pytest.fixture(scope="module")
def watched(lab, created):
    """Watch the running one in a notebook, in the panel and by its curves, let it end, and look at the list again."""
    running = f"{JOBS} tr[data-run]:has-text('training')"
    finish = f"fetch('{lab.url}/api/contents/gate?token={lab.token}', {{method: 'PUT', body: '{GATE}'}}).then(() => 0)"
    done = ".jp-notebook-jobs-panel tr:has-text('my training'):has-text('Completed')"
    visit = lab.visit(
        "watching.ipynb",
        {"do": "run_all"},
        {"do": "wait", "selector": f"{running} [data-state=running]"},
        # The last cell goes on from here; the panel is alive all the same.
        {"do": "changes", "selector": "[data-metric=loss] canvas", "times": 3},
        {"do": "text", "selector": f"{running} td"},
        {"do": "evaluate", "script": CHANGES.format(selector=f"{JOBS} .pai-spark polyline")},
        {"do": "click", "selector": f"{running} [data-key^=log-]"},
        {"do": "wait", "selector": f"{JOBS} .pai-words"},
        *look("watching-light"),
        *look("panel-light", JOBS),
        {"do": "theme", "dark": True},
        *look("watching-dark"),
        *look("panel-dark", JOBS),
        {"do": "theme", "dark": False},
        {"do": "evaluate", "script": finish},
        {"do": "wait", "selector": f"{running} [data-state=done]"},
        {"do": "idle"},
        {"do": "text", "selector": ".jp-OutputArea-output pre"},
        {"do": "text", "selector": f"{JOBS} tr[data-run]:has-text('failing') .pai-state"},
        *look("watched"),
        {"do": "save"},
        {"do": "evaluate", "script": "void window.jupyterapp.commands.execute('scheduling:list-jobs-from-launcher')"},
        {"do": "wait", "selector": ".jp-notebook-jobs-panel tr:has-text('my training')"},
        {"do": "evaluate", "script": RELOAD.format(selector=done)},
        *look("completed"),
        seconds=PATIENCE,
    )
    assert visit.widget_problems == []
    return [result for result in visit.results if isinstance(result, list)]


GATE = json.dumps({"type": "file", "format": "text", "content": "open"})
# Until the list shows it: press its Reload, as a person does.
RELOAD = """new Promise((done, fail) => {{
  const deadline = Date.now() + 200000;
  const look = () => {{
    const rows = [...document.querySelectorAll(".jp-notebook-jobs-panel tr")].map((row) => row.textContent);
    const words = [...{selector!r}.matchAll(/has-text\\('([^']*)'\\)/g)].map((match) => match[1]);
    if (rows.some((row) => words.every((word) => row.includes(word)))) return done();
    if (Date.now() > deadline) return fail(new Error(`the list shows ${{JSON.stringify(rows)}}`));
    const buttons = [...document.querySelectorAll(".jp-notebook-jobs-panel button")];
    buttons.find((one) => one.textContent === "Reload")?.click();
    setTimeout(look, 500);
  }};
  look();
}})"""
# The small curve goes on.
CHANGES = """new Promise((done) => {{
  const points = () => document.querySelector({selector!r})?.getAttribute("points");
  const first = points();
  const look = () => (points() && points() !== first ? done() : setTimeout(look, 100));
  look();
}})"""


def test_a_failing_notebook_shows_as_failed_with_its_cell(created):
    assert any("cell 2 failed: ZeroDivisionError" in text for text in created[-1])


def test_a_wrong_option_is_said_in_the_form(created):
    assert created[0] == ["a whole number, 0 or more"]


def test_the_options_of_the_form_arrive_at_the_run(watched, elsewhere):
    [job] = [run.job for run in JobStore(elsewhere / "jobs").runs() if "training" in run.job.notebook]
    assert (job.cluster, job.resources.workers) == ("inline", 1)


def test_the_running_one_is_seen_with_its_curve(watched):
    assert watched[0][1:2] == ["running"]
    assert watched[0][4] == "2 of 2"
    assert watched[0][5].startswith("loss 0.")


def test_what_it_printed_comes_to_whoever_follows_it(watched, lab):
    shown = "".join(watched[1])
    assert "[rank 0] trained" in shown or "trained" in shown
    notebook = nbformat.read(lab.folder / "watching.ipynb", 4)
    kinds = [kind for output in notebook.cells[3].outputs for kind in output.get("data", ())]
    assert "image/svg+xml" in kinds
    assert "application/vnd.jupyter.widget-view+json" not in kinds


def test_the_failed_one_is_beside_it(watched):
    assert watched[2] == ["failed"]
