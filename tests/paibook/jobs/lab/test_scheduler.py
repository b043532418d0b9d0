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
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TOKEN = "for-this-test-only"
ARGUMENTS = [
    "--ServerApp.jpserver_extensions={'jupyter_scheduler': True}",
    "--SchedulerApp.scheduler_class=paibook.jobs.lab.scheduler.PaiScheduler",
    "--SchedulerApp.environment_manager_class=paibook.jobs.lab.environments.PaiEnvironmentManager",
    "--PaiTaskRunner.poll_interval=1",
    "--ServerApp.port_retries=0",
    "--no-browser",
    "--allow-root",
]


class Server:
    def __init__(self, folder) -> None:
        self.folder = folder
        self.database = folder / "scheduler.sqlite"
        self.start()

    def start(self) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        environment = {**os.environ, "PAIBOOK_JOBS": str(self.folder / "jobs"), "JUPYTER_TOKEN": TOKEN}
        environment["JUPYTER_DATA_DIR"] = str(self.folder / "data")
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


@pytest.fixture
def server(tmp_path):
    made = Server(tmp_path)
    yield made
    store = JobStore(tmp_path / "jobs")
    for run in store.runs(states=("queued", "running")):
        with contextlib.suppress(PaibookError):  # it has ended meanwhile
            actions.stop(store, run.id)
    if made.process.poll() is None:
        made.end(signal.SIGKILL)


def wait_for(condition, seconds=300.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.2)
    return found


def ended(server, job_id):
    def look():
        job = server("GET", f"jobs/{job_id}")
        return job if job["status"] in ("COMPLETED", "FAILED", "STOPPED") else None

    return wait_for(look)


def looked_at(server):
    with sqlite3.connect(server.folder / "jobs" / "jobs.sqlite") as db:
        try:
            return db.execute("SELECT id FROM pai_definitions").fetchall()
        except sqlite3.OperationalError:  # no table yet
            return []


BASE = {"runtime_environment_name": "this server's", "name": "fit", "output_formats": ["ipynb"]}


def test_jobs_of_the_dialog(server, notebook_of) -> None:
    """One server for all, since each start takes seconds: types, failures, stop, a changed definition."""
    cells = [("lr = 0.1\nword = 'a'", "parameters"), "print(type(lr).__name__, type(word).__name__)"]
    notebook_of(server.folder / "fit.ipynb", *cells)
    notebook_of(server.folder / "bad.ipynb", "print('so far')", "1 / 0")
    notebook_of(server.folder / "long.ipynb", "import time\ntime.sleep(300)")
    options = {"cluster": "inline"}
    body = {**BASE, "input_uri": "fit.ipynb", "runtime_environment_parameters": options}
    typed = server("POST", "jobs", **body, parameters={"lr": "0.5", "word": "7"})["job_id"]
    bad = server("POST", "jobs", **{**body, "input_uri": "bad.ipynb"})["job_id"]
    long = server("POST", "jobs", **{**body, "input_uri": "long.ipynb"})["job_id"]
    quick = {**options, "timeout": 5}
    late = server("POST", "jobs", **{**body, "input_uri": "long.ipynb", "runtime_environment_parameters": quick})
    assert ended(server, typed)["status"] == "COMPLETED"
    output = next((server.folder / "data").rglob(f"{typed}/fit-*.ipynb"))
    assert "float str" in output.read_text()
    failed = ended(server, bad)
    assert failed["status"] == "FAILED"
    assert "cell 2 failed: ZeroDivisionError" in failed["status_message"]
    assert failed["end_time"]
    assert "so far" in next((server.folder / "data").rglob(f"{bad}/bad-*.ipynb")).read_text()
    server("PATCH", f"jobs/{long}", status="STOPPED")
    assert ended(server, long)["status"] == "STOPPED"
    assert "timeout of 5 s" in ended(server, late["job_id"])["status_message"]
    definition = server("POST", "job_definitions", **body, schedule="0 0 1 1 *", timezone="UTC", parameters={"lr": "1"})
    id = definition["job_definition_id"]
    server("PATCH", f"job_definitions/{id}", parameters={"lr": "2"})
    assert server("GET", f"job_definitions/{id}")["parameters"] == {"lr": "2"}


def test_what_came_due_while_no_server_ran_is_run_once(server, notebook_of) -> None:
    notebook_of(server.folder / "fit.ipynb", "1")
    options = {"cluster": "inline"}
    body = {**BASE, "input_uri": "fit.ipynb", "runtime_environment_parameters": options}
    server("POST", "job_definitions", **body, schedule="0 0 1 1 *", timezone="UTC")
    wait_for(lambda: looked_at(server))
    server.end(signal.SIGKILL)
    with sqlite3.connect(server.database) as db:
        db.execute("UPDATE job_definitions SET update_time = 1000")
    with sqlite3.connect(server.folder / "jobs" / "jobs.sqlite") as db:
        db.execute("UPDATE pai_definitions SET scheduled_until = 1000")
    server.start()
    [job] = wait_for(lambda: server("GET", "jobs")["jobs"])
    assert ended(server, job["job_id"])["status"] == "COMPLETED"
    assert server("GET", "jobs")["total_count"] == 1


def refused(server, path, **values):
    with pytest.raises(urllib.error.HTTPError) as caught:
        server("POST", path, **values)
    with caught.value as answer:
        return json.loads(answer.read())["message"]


def test_options_of_the_dialogs_form(server, notebook_of) -> None:
    """What cannot be meant is said at once; what can be arrives at the run; policies hold for a definition's rows."""
    first = f"import os, pathlib\nmark = pathlib.Path({str(server.folder / 'mark')!r})"
    once = "seen = mark.exists()\nmark.touch()\nassert seen\nprint('workers', os.environ['PAIBOOK_WORKERS'])"
    notebook_of(server.folder / "fit.ipynb", ("lr = 0.1", "parameters"), first, once)
    notebook_of(server.folder / "long.ipynb", "import time\ntime.sleep(300)")
    body = {**BASE, "input_uri": "fit.ipynb"}
    assert "lr" in refused(server, "jobs", **body, parameters={"lr": "fast"})
    assert "did you mean 'lr'" in refused(server, "jobs", **body, parameters={"lrr": "1"})
    wrong = {"runtime_environment_parameters": {"workers": "many"}}
    assert refused(server, "jobs", **body, **wrong) == "workers must be a whole number, 0 or more; got 'many'"
    assert "workers" in refused(server, "job_definitions", **body, **wrong, schedule="@daily")
    assert "30 2" in refused(server, "job_definitions", **body, schedule="0 0 30 2 *")
    assert server("GET", "jobs")["total_count"] == 0
    options = {"cluster": "inline", "workers": "3", "retries": "1", "backoff": "0", "timeout": "200"}
    made = {"runtime_environment_parameters": {**options, "email": "a@example.org", "notify_on": "stopped"}}
    tried = server("POST", "jobs", **body, **made)["job_id"]
    assert ended(server, tried)["status"] == "COMPLETED"
    [run] = JobStore(server.folder / "jobs").runs(tried)
    assert (run.attempt, run.job.resources.workers, run.job.timeout) == (2, 3, 200.0)
    assert run.job.notify.email == ("a@example.org",)
    assert "workers 3" in next((server.folder / "data").rglob(f"{tried}/fit-*.ipynb")).read_text()
    policies = {"cluster": "inline", "missed": "catch-up", "concurrency": "forbid"}
    late = {**BASE, "input_uri": "long.ipynb", "timezone": "UTC", "runtime_environment_parameters": policies}
    every_minute = server("POST", "job_definitions", **late, schedule="* * * * *")["job_definition_id"]
    skips = {**late, "runtime_environment_parameters": {"missed": "skip"}}
    never = server("POST", "job_definitions", **skips, schedule="0 0 1 1 *")["job_definition_id"]
    wait_for(lambda: len(looked_at(server)) == 2)
    set_back(server, every_minute, time.time() - 200)
    set_back(server, never, 1000.0)
    [job] = wait_for(lambda: rows_of(server, every_minute))
    wait_for(lambda: looked_up_to(server, never) > time.time() - 30 and looked_up_to(server, every_minute) > 1000)
    assert (len(rows_of(server, every_minute)), rows_of(server, never)) == (1, [])
    server("PATCH", f"job_definitions/{every_minute}", active=False)
    wait_for(lambda: JobStore(server.folder / "jobs").runs(job["job_id"], ("running",)))
    server("PATCH", f"jobs/{job['job_id']}", status="STOPPED")
    assert ended(server, job["job_id"])["status"] == "STOPPED"


def rows_of(server, definition):
    return server("GET", f"jobs?job_definition_id={definition}")["jobs"]


def set_back(server, definition, moment):
    """As if nobody had looked since."""
    with sqlite3.connect(server.database) as db:
        db.execute("UPDATE job_definitions SET update_time = 1000 WHERE job_definition_id = ?", (definition,))
    with sqlite3.connect(server.folder / "jobs" / "jobs.sqlite") as db:
        db.execute("UPDATE pai_definitions SET scheduled_until = ? WHERE id = ?", (moment, definition))


def looked_up_to(server, definition):
    with sqlite3.connect(server.folder / "jobs" / "jobs.sqlite") as db:
        [(moment,)] = db.execute("SELECT scheduled_until FROM pai_definitions WHERE id = ?", (definition,)).fetchall()
    return moment
