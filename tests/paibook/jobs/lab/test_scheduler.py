"""The dialog's REST API, of a real jupyter-server with its database."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from paibook.errors import PaibookError
from paibook.jobs import actions
from paibook.jobs.store import JobStore

pytest.importorskip("jupyter_scheduler")
HERE = "this server's"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TOKEN = "for-this-test-only"
ARGUMENTS = [
    "--ServerApp.jpserver_extensions={'jupyter_scheduler': True}",
    "--SchedulerApp.scheduler_class=paibook.jobs.lab.scheduler.PaiScheduler",
    "--SchedulerApp.environment_manager_class=paibook.jobs.lab.environments.PaiEnvironmentManager",
    "--ServerApp.port_retries=0",
    "--no-browser",
    "--allow-root",
]


class Server:
    """A server process; several may share a folder, with its database and store."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.database = folder / "scheduler.sqlite"
        self.store = JobStore(folder / "jobs")
        self.start()

    def start(self) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        environment = {**os.environ, "PAIBOOK_JOBS": str(self.folder / "jobs"), "JUPYTER_TOKEN": TOKEN}
        environment["JUPYTER_DATA_DIR"] = str(self.folder / "data")
        environment["PATH"] = f"{self.folder / 'bin'}{os.pathsep}{environment['PATH']}"
        more = [f"--ServerApp.root_dir={self.folder}", f"--ServerApp.port={self.port}"]
        more.append(f"--SchedulerApp.db_url=sqlite:///{self.database}")
        self.log = (self.folder / "server.log").open("ab")
        command = [sys.executable, "-m", "jupyter_server", *ARGUMENTS, *more]
        self.process = subprocess.Popen(command, env=environment, stdout=self.log, stderr=self.log)
        try:
            wait_for(self.answers, 60)
        except BaseException:
            self.end(signal.SIGKILL)
            raise

    def answers(self):
        assert self.process.poll() is None, (self.folder / "server.log").read_text()[-3000:]
        try:
            return self("GET", "config") is not None
        except OSError:
            return False

    def __call__(self, method, path, **values):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/scheduler/{path}",
            json.dumps(values).encode() if values else None,
            {"Authorization": f"token {TOKEN}", "Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else {}

    def end(self, number=signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(30)
        self.log.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a ``conda`` that lists one environment, whose Python sets a variable and has a package of its own."""
    made = tmp_path_factory.mktemp("lab")
    python = made / "envs" / "other" / "bin" / "python"
    scripts = {
        made / "bin" / "conda": f"""echo '{{"envs": ["{python.parents[1]}"]}}'""",
        python: f'export CHOSEN=other PYTHONPATH={made}/packages:$PYTHONPATH\nexec {sys.executable} "$@"',
    }
    package = made / "packages" / "only_there-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: only-there\nVersion: 1.0\n")
    for path, text in scripts.items():
        path.parent.mkdir(parents=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    return made


@pytest.fixture(scope="module")
def server(folder):
    """Each start takes seconds, so that one serves all tests."""
    yield from serving(folder)


@pytest.fixture(scope="module")
def other(server):
    """A second server on the same database and store."""
    yield from serving(server.folder)


def serving(folder):
    made = Server(folder)
    yield made
    for run in made.store.runs(states=("queued", "running")):
        with contextlib.suppress(PaibookError):  # it has ended meanwhile
            actions.stop(made.store, run.id)
    if made.process.poll() is None:
        made.end(signal.SIGKILL)


def wait_for(condition, seconds=300.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)
    return found


def ended(server, job_id):
    def look():
        job = server("GET", f"jobs/{job_id}")
        return job if job["status"] in ("COMPLETED", "FAILED", "STOPPED") else None

    return wait_for(look)


def completed(server, job_id):
    job = ended(server, job_id)
    assert job["status"] == "COMPLETED", job
    return True


def made_due(server, definition, since=1000.0):
    """Let a definition be as if nobody had looked since; then its latest fire time is due."""
    with sqlite3.connect(server.database, timeout=30) as db:
        db.execute("UPDATE job_definitions SET update_time = 1000 WHERE job_definition_id = ?", (definition,))
    with server.store.transaction() as db:
        db.execute("INSERT OR REPLACE INTO pai_definitions VALUES (?, ?)", (definition, since))


def looked_at(server):
    with sqlite3.connect(server.folder / "jobs" / "jobs.sqlite") as db:
        try:
            return db.execute("SELECT id FROM pai_definitions").fetchall()
        except sqlite3.OperationalError:  # no table yet
            return []


def submit(server, path, parameters=None, name=HERE, **options):
    """A job, as the dialog posts it; returns its id."""
    body = {**BASE, "input_uri": path, "runtime_environment_name": name, "parameters": parameters or {}}
    return server("POST", "jobs", **body, runtime_environment_parameters={"cluster": "inline", **options})["job_id"]


def output(server, job_id):
    return next((server.folder / "data").rglob(f"{job_id}/*-*.ipynb")).read_text()


BASE = {"name": "fit", "output_formats": ["ipynb"]}
INLINE = {**BASE, "runtime_environment_name": HERE, "runtime_environment_parameters": {"cluster": "inline"}}
LONG = "import time\nprint('so far', flush=True)\ntime.sleep(300)"


def test_what_came_due_while_no_server_ran_is_run_once(server, notebook_of) -> None:
    notebook_of(server.folder / "due.ipynb", "1")
    body = {**INLINE, "input_uri": "due.ipynb"}
    made = server("POST", "job_definitions", **body, schedule="0 0 1 1 *", timezone="UTC")["job_definition_id"]
    wait_for(lambda: looked_at(server))
    server.end(signal.SIGKILL)
    with sqlite3.connect(server.database) as db:
        db.execute("UPDATE job_definitions SET update_time = 1000")
    with sqlite3.connect(server.folder / "jobs" / "jobs.sqlite") as db:
        db.execute("UPDATE pai_definitions SET scheduled_until = 1000")
    server.start()
    [job] = wait_for(lambda: server("GET", f"jobs?job_definition_id={made}")["jobs"])
    assert completed(server, job["job_id"])
    assert server("GET", f"jobs?job_definition_id={made}")["total_count"] == 1


def test_parameters_have_their_types_and_a_failure_its_traceback(server, notebook_of) -> None:
    cells = [("lr = 0.1\nword = 'a'", "parameters"), "print(type(lr).__name__, type(word).__name__)"]
    notebook_of(server.folder / "fit.ipynb", *cells)
    notebook_of(server.folder / "bad.ipynb", "print('so far')", "1 / 0")
    typed = submit(server, "fit.ipynb", {"lr": "0.5", "word": "7"})
    bad = submit(server, "bad.ipynb")
    assert ended(server, typed)["status"] == "COMPLETED"
    assert "float str" in output(server, typed)
    failed = ended(server, bad)
    assert failed["status"] == "FAILED"
    assert failed["start_time"] <= failed["end_time"]
    assert "cell 2 failed: ZeroDivisionError" in failed["status_message"]
    assert "----> 1 1 / 0" in failed["status_message"]
    assert "so far" in output(server, bad)


def test_timeout_and_retries_apply(server, notebook_of) -> None:
    flag = server.folder / "flag"
    first_fails = f"import pathlib\nflag = pathlib.Path({str(flag)!r})\nseen = flag.exists()\nflag.touch()\nassert seen"
    notebook_of(server.folder / "again.ipynb", first_fails)
    notebook_of(server.folder / "long.ipynb", LONG)
    again = submit(server, "again.ipynb", retries=1, backoff=0.1)
    late = submit(server, "long.ipynb", timeout=1)
    assert ended(server, again)["status"] == "COMPLETED"
    assert server.store.run(again).attempt == 2
    assert "timeout of 1 s" in ended(server, late)["status_message"]


def test_the_chosen_environment_is_used(server, notebook_of) -> None:
    notebook_of(server.folder / "where.ipynb", "import os\nprint('in', os.environ.get('CHOSEN'))")
    assert [entry["name"] for entry in server("GET", "runtime_environments")] == [HERE, "other"]
    job = submit(server, "where.ipynb", name="other")
    assert completed(server, job)
    assert "in other" in output(server, job)
    assert "only-there==1.0" in server.store.run(job).provenance["packages"]


def test_a_definition_keeps_a_change_of_its_parameters_alone(server, notebook_of) -> None:
    notebook_of(server.folder / "fit.ipynb", ("lr = 0.1", "parameters"))
    body = {**INLINE, "input_uri": "fit.ipynb", "parameters": {"lr": "1"}}
    made = server("POST", "job_definitions", **body, schedule="0 0 1 1 *", timezone="UTC")["job_definition_id"]
    server("PATCH", f"job_definitions/{made}", parameters={"lr": "2"})
    assert server("GET", f"job_definitions/{made}")["parameters"] == {"lr": "2"}
    job = server("POST", f"job_definitions/{made}/jobs", parameters={"lr": "3"})["job_id"]
    assert ended(server, job)["status"] == "COMPLETED"
    assert server.store.run(job).job.parameters == {"lr": 3}


def refused(server, path, method="POST", **values):
    with pytest.raises(urllib.error.HTTPError) as caught:
        server(method, path, **values)
    with caught.value as answer:
        return json.loads(answer.read())["message"]


def test_what_cannot_be_meant_is_said_at_once(server, notebook_of) -> None:
    notebook_of(server.folder / "fit.ipynb", ("lr = 0.1", "parameters"))
    body = {**BASE, "input_uri": "fit.ipynb", "runtime_environment_name": HERE}
    before = server("GET", "jobs")["total_count"]
    assert "lr" in refused(server, "jobs", **body, parameters={"lr": "fast"})
    assert "did you mean 'lr'" in refused(server, "jobs", **body, parameters={"lrr": "1"})
    wrong = {"runtime_environment_parameters": {"workers": "many"}}
    assert refused(server, "jobs", **body, **wrong) == "workers must be a whole number, 0 or more; got 'many'"
    assert "workers" in refused(server, "job_definitions", **body, **wrong, schedule="@daily")
    assert "30 2" in refused(server, "job_definitions", **body, schedule="0 0 30 2 *")
    assert server("GET", "jobs")["total_count"] == before
    made = server("POST", "job_definitions", **body, schedule="@yearly")["job_definition_id"]
    path = f"job_definitions/{made}"
    assert "30 2" in refused(server, path, "PATCH", schedule="0 0 30 2 *")
    assert "workers" in refused(server, path, "PATCH", **wrong)
    assert "lr" in refused(server, path, "PATCH", parameters={"lr": "fast"})
    assert server("GET", path)["schedule"] == "@yearly"


def test_options_of_the_form_arrive_at_the_run(server, notebook_of) -> None:
    first = f"import os, pathlib\nmark = pathlib.Path({str(server.folder / 'mark')!r})"
    once = "seen = mark.exists()\nmark.touch()\nassert seen\nprint('workers', os.environ['PAIBOOK_WORKERS'])"
    notebook_of(server.folder / "tried.ipynb", first, once)
    options = {"workers": "3", "retries": "1", "backoff": "0", "timeout": "200"}
    tried = submit(server, "tried.ipynb", **options, email="a@example.org", notify_on="stopped")
    assert completed(server, tried)
    run = server.store.run(tried)
    assert (run.attempt, run.job.resources.workers, run.job.timeout) == (2, 3, 200.0)
    assert run.job.notify.email == ("a@example.org",)
    assert "workers 3" in output(server, tried)


def test_policies_hold_for_the_rows_of_a_definition(server, notebook_of) -> None:
    notebook_of(server.folder / "long.ipynb", LONG)

    def define(schedule, **options):
        values = {**INLINE, "input_uri": "long.ipynb", "timezone": "UTC"}
        values["runtime_environment_parameters"] = {"cluster": "inline", **options}
        return server("POST", "job_definitions", **values, schedule=schedule)["job_definition_id"]

    every_minute = define("* * * * *", missed="catch-up", concurrency="forbid")
    never = define("0 0 1 1 *", missed="skip")
    replaces = define("* * * * *", missed="catch-up", concurrency="replace")
    broken = define("* * * * *")
    for staged in (server.folder / "data").rglob(f"{broken}/*.ipynb"):
        staged.write_text(json.dumps({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    wait_for(lambda: {(name,) for name in (every_minute, never, replaces, broken)} <= set(looked_at(server)))
    for definition in (broken, every_minute, replaces):
        made_due(server, definition, time.time() - 200)
    made_due(server, never)
    assert len(wait_for(lambda: rows_of(server, replaces))) == 1
    server("PATCH", f"job_definitions/{replaces}", active=False)
    [job] = wait_for(lambda: rows_of(server, every_minute))
    wait_for(lambda: looked_up_to(server, never) > time.time() - 30 and looked_up_to(server, every_minute) > 1000)
    assert (len(rows_of(server, every_minute)), rows_of(server, never)) == (1, [])
    server("PATCH", f"job_definitions/{every_minute}", active=False)
    wait_for(lambda: JobStore(server.folder / "jobs").runs(job["job_id"], ("running",)))
    server("PATCH", f"jobs/{job['job_id']}", status="STOPPED")
    assert ended(server, job["job_id"])["status"] == "STOPPED"


def rows_of(server, definition):
    return server("GET", f"jobs?job_definition_id={definition}")["jobs"]


def looked_up_to(server, definition):
    with sqlite3.connect(server.folder / "jobs" / "jobs.sqlite") as db:
        [(moment,)] = db.execute("SELECT scheduled_until FROM pai_definitions WHERE id = ?", (definition,)).fetchall()
    return moment


def test_two_servers_run_a_job_once_and_either_stops_it(server, other, notebook_of) -> None:
    log = server.folder / "log"
    notebook_of(server.folder / "once.ipynb", f"with open({str(log)!r}, 'a') as f:\n    print('ran', file=f)")
    notebook_of(server.folder / "long.ipynb", LONG)
    long = submit(server, "long.ipynb")
    made = [submit(one, "once.ipynb") for one in (server, other)]
    definition = other(
        "POST", "job_definitions", **INLINE, input_uri="once.ipynb", schedule="0 0 1 1 *", timezone="UTC"
    )
    made_due(server, definition["job_definition_id"])
    query = f"jobs?job_definition_id={definition['job_definition_id']}"
    made += [job["job_id"] for job in wait_for(lambda: server("GET", query)["jobs"])]
    for job_id in made:
        assert ended(other, job_id)["status"] == ended(server, job_id)["status"] == "COMPLETED"
    assert server("GET", query)["total_count"] == 1
    assert log.read_text().split() == ["ran"] * len(made)
    wait_for(lambda: server("GET", f"jobs/{long}")["status"] == "IN_PROGRESS")
    other("PATCH", f"jobs/{long}", status="STOPPED")
    assert ended(server, long)["status"] == "STOPPED"


def test_a_row_follows_its_run_when_server_and_run_are_killed(server, other, notebook_of) -> None:
    flag = server.folder / "go"
    waits = f"import pathlib, time\nwhile not pathlib.Path({str(flag)!r}).exists():\n    time.sleep(0.05)"
    notebook_of(server.folder / "lives.ipynb", waits, "2")
    lives, killed = [submit(server, "lives.ipynb") for _ in range(2)]
    for job_id in (lives, killed):
        wait_for(lambda row=job_id: other("GET", f"jobs/{row}")["status"] == "IN_PROGRESS")
    server.end(signal.SIGKILL)
    os.kill(server.store.run(killed).pid, signal.SIGKILL)
    flag.touch()
    for job_id in (lives, killed):
        assert ended(other, job_id)["status"] == "COMPLETED"
    assert [server.store.run(job_id).attempt for job_id in (lives, killed)] == [1, 2]
