"""Runs in processes of their own: they end as their notebooks do, and nothing is lost, doubled or left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import pytest

from paibook.errors import PaibookError
from paibook.jobs import Dependency, Job, actions
from paibook.jobs import scheduler as scheduler_module
from paibook.jobs.attempt import Attempt
from paibook.jobs.claims import requeue_lost
from paibook.jobs.kernel import MARK
from paibook.jobs.runner import spawn
from paibook.jobs.scheduler import Scheduler, drain
from paibook.jobs.store import JobStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def store(tmp_path):
    return JobStore(tmp_path / "jobs")


def marked(run_id):
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == run_id and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def text_of(store, run_id):
    return actions.logs(store, run_id)


def test_a_notebook_runs_with_its_parameters_and_magics(store, tmp_path, notebook_of, monkeypatch) -> None:
    monkeypatch.setenv("SESAME", "open")
    path = notebook_of(
        tmp_path / "a b.ipynb",
        ("lr = 0.1\nword = ''", "parameters"),
        "print('lr', lr, len(word), 'pai_allreduce' in get_ipython().magics_manager.magics['cell'])\nlr * 2",
    )
    job = Job(
        "a b", str(path), {"lr": 0.5, "word": "env:SESAME"}, outputs=("ipynb", "html", "script"), cluster="inline"
    )
    job = replace(job, output=str(tmp_path / "out"))
    [run_id] = actions.queue(store, job)
    drain(store, [run_id])
    run = store.run(run_id)
    assert (run.state, run.error, run.traceback) == ("done", "", "")
    assert "lr 0.5 4 True" in text_of(store, run_id)
    assert sorted(p.suffix for p in (tmp_path / "out").iterdir()) == [".html", ".ipynb", ".py"]
    assert all(b"'open'" not in p.read_bytes() for p in store.folder(run_id).glob("*.ipynb"))
    assert any(package.startswith("ipykernel==") for package in run.provenance["packages"])
    assert run.provenance["parameters"] == {"lr": "0.5", "word": "env:SESAME"}
    assert actions.results(store, [run_id]).loc[run_id, "result"] == "1.0"


def test_a_failed_cell_fails_the_run_and_resume_goes_on_there(store, tmp_path, notebook_of) -> None:
    flag = tmp_path / "flag"
    path = notebook_of(
        tmp_path / "f.ipynb",
        "import os\ndef double(x):\n    return 2 * x",
        "from pathlib import Path\nprint('once')\nnumbers = [1, 2]\nshared = numbers",
        f"assert os.path.exists({str(flag)!r}), 'no flag yet'\nshared.append(double(3))\nprint(numbers)",
    )
    [run_id] = actions.queue(store, Job("f", str(path), cluster="inline"))
    drain(store, [run_id])
    run = store.run(run_id)
    assert run.state == "failed"
    assert run.error == "cell 3 failed: AssertionError: no flag yet"
    assert "assert os.path.exists" in run.traceback
    assert "\x1b" not in run.traceback
    assert "once" in text_of(store, run_id)
    flag.touch()
    actions.resume(store, run_id)
    drain(store, [run_id])
    said = text_of(store, run_id)
    assert store.run(run_id).state == "done", said
    assert "went on at cell 3" in said
    assert "[1, 2, 6]" in said
    assert said.count("once") == 1
    with pytest.raises(PaibookError, match="is done"):
        actions.resume(store, run_id)


def test_a_retry_begins_anew(store, tmp_path, notebook_of) -> None:
    count = tmp_path / "count"
    path = notebook_of(
        tmp_path / "r.ipynb",
        f"from pathlib import Path\np = Path({str(count)!r})\np.write_text(p.read_text() + 'x' if p.exists() else 'x')",
        "assert p.read_text() == 'xx'",
    )
    [run_id] = actions.queue(store, Job("r", str(path), cluster="inline", retries=1, backoff=0.1))
    drain(store, [run_id])
    run = store.run(run_id)
    assert (run.state, run.attempt, count.read_text()) == ("done", 2, "xx"), run


def test_a_timeout_ends_the_process_before_its_kernel_is_there(store, tmp_path, notebook_of) -> None:
    path = notebook_of(tmp_path / "t.ipynb", "1")
    [run_id] = actions.queue(store, Job("t", str(path), cluster="inline", timeout=0.01))
    drain(store, [run_id])
    assert store.run(run_id).error == "it took longer than its timeout of 0.01 s"
    assert marked(run_id) == []


def test_a_kernel_that_dies_between_cells_fails_the_run(store, tmp_path, notebook_of) -> None:
    dies = (
        "class Deadly:\n    def __reduce__(self):\n        import os\n        os.kill(os.getpid(), 9)\nkept = Deadly()"
    )
    path = notebook_of(tmp_path / "d.ipynb", dies, "2")  # the variables are kept after each cell
    [run_id] = actions.queue(store, Job("d", str(path), cluster="inline"))
    drain(store, [run_id])
    run = store.run(run_id)
    assert (run.state, "ernel died" in run.error) == ("failed", True), run.error


def test_a_job_that_runs_already_is_waited_for_without_a_process(store, tmp_path, notebook_of, monkeypatch) -> None:
    monkeypatch.setattr(scheduler_module, "requeue_lost", lambda store: [])
    started: list[str] = []
    job = Job("b", str(notebook_of(tmp_path / "b.ipynb", "1")), cluster="inline")
    [first] = actions.queue(store, job)
    store.update(first, state="running")
    [second] = actions.queue(store, job)

    def look(seconds: float) -> None:
        looks.append(list(started))
        if len(looks) == 3:
            store.update(first, state="done")
        if started:
            store.update(second, state="done")
            process.poll = lambda: 0

    looks: list[list[str]] = []
    process = SimpleNamespace(poll=lambda: None, wait=lambda: None)
    monkeypatch.setattr(scheduler_module, "spawn", lambda store, run_id: started.append(run_id) or process)
    monkeypatch.setattr(scheduler_module.time, "sleep", look)
    assert drain(store, [second]) == [second]
    assert (looks[:3], started) == ([[]] * 3, [second])


@pytest.fixture
async def attempt(store, tmp_path, notebook_of, monkeypatch):
    """An attempt in this process, in the middle of a cell that has printed; ``attempt.ending`` is a task."""
    monkeypatch.setattr("paibook.jobs.attempt.SAVE_SECONDS", 0.1)
    path = notebook_of(tmp_path / "t.ipynb", "print('before', flush=True)\nimport time\ntime.sleep(600)", "2")
    [run_id] = actions.queue(store, Job("t", str(path), cluster="inline", timeout=3600))
    folder = store.folder(run_id)
    folder.mkdir(parents=True)
    made = Attempt(store.run(run_id), folder, SimpleNamespace(begins=print, waits=print, started=print))
    made.ending = asyncio.create_task(made.carry_out())
    while "before" not in text_of(store, run_id):
        assert not made.ending.done(), made.ending
        await asyncio.sleep(0.05)
    return made


async def test_at_its_timeout_the_output_so_far_is_kept(attempt, store, monkeypatch) -> None:
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: time.monotonic() + 3600)
    assert (await attempt.ending).error == "it took longer than its timeout of 3600 s"
    assert "before" in text_of(store, attempt.run.id)
    assert marked(attempt.run.id) == []


async def test_a_signal_stops_it_as_a_stop_does(attempt, store) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    assert (await attempt.ending).state == "stopped"
    assert "before" in text_of(store, attempt.run.id)
    assert marked(attempt.run.id) == []


def test_stop_leaves_no_process(store, tmp_path, notebook_of, wait_for) -> None:
    path = notebook_of(
        tmp_path / "s.ipynb",
        "import subprocess, time\nchild = subprocess.Popen(['sleep', '300'])",
        "print('started', flush=True)\ntime.sleep(300)",
    )
    [run_id] = actions.queue(store, Job("s", str(path), cluster="inline"))
    process = spawn(store, run_id)
    wait_for(lambda: "started" in text_of(store, run_id))
    assert len(marked(run_id)) >= 2
    assert actions.stop(store, run_id).state == "stopped"
    process.wait(10)
    assert marked(run_id) == []
    with pytest.raises(PaibookError, match="has ended: stopped"):
        actions.stop(store, run_id)


def test_a_killed_run_is_queued_again_and_done_once(store, tmp_path, notebook_of, monkeypatch, wait_for) -> None:
    monkeypatch.setattr(scheduler_module, "LEFT_SECONDS", 0.0)
    log, flag = tmp_path / "log", tmp_path / "flag"
    path = notebook_of(
        tmp_path / "k.ipynb",
        f"import time\nwith open({str(log)!r}, 'a') as f:\n    print('first', file=f)",
        f"import os\nwhile not os.path.exists({str(flag)!r}):\n    time.sleep(0.05)\n"
        f"with open({str(log)!r}, 'a') as g:\n    print('second', file=g)",
    )
    [run_id] = actions.queue(store, Job("k", str(path), cluster="inline", backoff=0.1))
    process = spawn(store, run_id)
    wait_for(lambda: store.run(run_id).cell == 1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    scheduler = Scheduler(store)
    scheduler.tick(time.time())  # ends what the kill left, and begins anew
    flag.touch()
    wait_for(lambda: (scheduler.tick(time.time()), store.run(run_id).state)[1] == "done")
    assert log.read_text().split() == ["first", "second"]
    assert store.run(run_id).attempt == 2
    wait_for(lambda: marked(run_id) == [])


TASKS = """\
%%pai_mapreduce -i items -o out --reducers 8 --push seen,flag
import os, time
def map(record):
    yield record % 8, 1
def reduce(key, values):
    with open(seen, "a+") as file:
        file.write(f"{key}\\n")
        file.flush()
        file.seek(0)
        if len(file.readlines()) > 4 and not os.path.exists(flag):
            open(flag + ".wanted", "w").close()
            time.sleep(600)
    yield key, sum(values)"""


TRAINING = """\
%%pai_ps -n 1 --servers 1 --push seen,flag --checkpoint checkpoints --checkpoint-every 2 -o out
import os, time
def train(ps):
    w = ps.table("w", shape=(1, 1), optimizer=pai.Adagrad(lr=0.5))
    for clock in ps.clocks(8):
        w.push(w.pull() - clock)
        with open(seen, "a") as file:
            file.write(f"{clock}\\n")
        if clock == 5 and not os.path.exists(flag):
            open(flag + ".wanted", "w").close()
            time.sleep(600)
    return 8"""


@pytest.mark.parametrize(
    ("cell", "last", "said", "kept"),
    [
        (TASKS, "print(sorted(dict(out).items()))", str([(key, 10) for key in range(8)]), "runs/*/work"),
        (TRAINING, "print('returned', out.returned)", "returned (8,)", "checkpoints/manifest.json"),
    ],
    ids=["mapreduce", "ps"],
)
def test_a_killed_run_goes_on_inside_its_cell(
    store, tmp_path, notebook_of, monkeypatch, wait_for, cell, last, said, kept
) -> None:
    monkeypatch.setenv("PAIBOOK_RUNS", str(tmp_path / "runs"))
    seen, flag = tmp_path / "seen", tmp_path / "flag"
    variables = f"items = list(range(80))\nseen, flag = {str(seen)!r}, {str(flag)!r}"
    path = notebook_of(tmp_path / "m.ipynb", variables, cell, last)
    [run_id] = actions.queue(store, Job("m", str(path), cluster="inline"))
    process = spawn(store, run_id)
    wait_for(lambda: (tmp_path / "flag.wanted").exists() and list(tmp_path.glob(kept)))
    for pid in {process.pid, *marked(run_id)}:  # as a power failure does
        os.kill(pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not marked(run_id))
    before = len(seen.read_text().split())
    flag.touch()
    assert requeue_lost(store) == [run_id]
    drain(store, [run_id])
    text = text_of(store, run_id)
    assert store.run(run_id).state == "done", text
    assert "went on at cell 2" in text
    assert said in text
    assert len(seen.read_text().split()) < before + 8  # what had finished was not done again
    if cell is TASKS:
        assert "went on inside cell 2, with its run " in text
        output = nbformat.read(store.folder(run_id) / "output.ipynb", as_version=4)
        assert output.cells[1].source == cell


SERVE = [sys.executable, "-m", "paibook.jobs.command", "job", "serve"]


def test_two_schedulers_run_each_fire_time_once_and_one_may_be_killed(store, tmp_path, notebook_of, wait_for) -> None:
    log = tmp_path / "log"
    path = notebook_of(tmp_path / "c.ipynb", f"with open({str(log)!r}, 'a') as f:\n    print('ran', file=f)")
    job = Job("c", str(path), cron="* * * * *", missed="catch-up", cluster="inline", concurrency="allow")
    store.save(job)
    with store.transaction() as db:
        db.execute("UPDATE pai_jobs SET scheduled_until = ?", (time.time() // 60 * 60 - 90,))
    environment = {**os.environ, "PAIBOOK_JOBS": str(store.root)}
    serving = [subprocess.Popen(SERVE, env=environment) for _ in range(2)]
    try:
        wait_for(lambda: store.runs())
        serving[0].send_signal(signal.SIGKILL)
        wait_for(lambda: len(store.runs(states=("done",))) >= 2)
    finally:
        serving[1].terminate()
        codes = [process.wait(20) for process in serving]
    assert codes[1] == 0
    wait_for(lambda: not store.runs(states=("running", "queued")) or not log.exists())
    runs = store.runs()
    assert len({run.due for run in runs}) == len(runs) == len(log.read_text().split())
    assert all(run.state == "done" and run.attempt == 1 for run in runs)


def test_jobs_come_after_jobs_and_a_grid_fans_out(store, tmp_path, notebook_of) -> None:
    first = notebook_of(tmp_path / "first.ipynb", ("lr = 1", "parameters"), "lr * 10")
    job = Job("first", str(first), cluster="inline")
    store.save(job)
    store.save(
        Job(
            "second",
            str(notebook_of(tmp_path / "second.ipynb", "'after'")),
            cluster="inline",
            after=(Dependency("first"),),
        )
    )
    ended = drain(store, actions.queue(store, job))
    assert [store.run(run_id).job.name for run_id in ended] == ["first", "second"]
    made = actions.queue(store, replace(job, name="grid"), {"lr": [1, 2]})
    drain(store, made, most=2)
    frame = actions.results(store, made)
    assert list(frame["result"]) == ["10", "20"]
    assert actions.diff(store, *made) == {"parameters.lr": ("1", "2")}
    assert [run.cause for run in store.runs("second")] == ["after"]
    again = actions.rerun(store, made[0])
    Path(first).unlink()  # what ran was kept
    drain(store, [again])
    assert store.run(again).state == "done"
    assert actions.diff(store, made[0], again) == {}
    assert (
        nbformat.read(store.folder(again) / "output.ipynb", as_version=4).cells[-1].outputs[0].data["text/plain"]
        == "10"
    )
