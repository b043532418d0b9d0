"""What follows the end of a run: outputs, somebody told, old runs forgotten."""

from __future__ import annotations

import json
import os
import socketserver
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from paibook.errors import DataError, PlanError
from paibook.jobs import Job, Notification
from paibook.jobs.attempt import Attempt, Ending
from paibook.jobs.claims import claim, queue_followers, retry
from paibook.jobs.kernel import interpreter, kernel_environment
from paibook.jobs.notification import notify
from paibook.jobs.outputs import write_outputs
from paibook.jobs.provenance import Interpreter, differences, provenance
from paibook.jobs.store import JobStore

JOB = Job("a", "a.ipynb", cluster="inline")


@pytest.fixture
def store(tmp_path):
    return JobStore(tmp_path / "jobs")


@pytest.fixture
def hook():
    """An address, and what was posted to it."""
    told = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", told
    server.shutdown()
    thread.join()
    server.server_close()


def failed_run(store, job):
    run_id = store.add_run(job, "user")
    claim(store, run_id)
    run = store.run(run_id)
    store.finish(run_id, run.pid, "failed", error="cell 1 failed", traceback="here")
    return store.run(run_id)


def test_a_webhook_is_told_of_the_ends_it_asked_for(store, hook) -> None:
    address, told = hook
    run = failed_run(store, replace(JOB, notify=Notification(address)))
    assert notify(run) == []
    assert (told[0]["job"], told[0]["state"], told[0]["traceback"]) == ("a", "failed", "here")
    assert told[0]["text"] == "job a: failed: cell 1 failed"
    assert notify(replace(run, state="done")) == []
    assert len(told) == 1


class Mail(socketserver.StreamRequestHandler):
    """As much of SMTP (RFC 5321) as a message needs."""

    def handle(self) -> None:
        self.say("220 here")
        while line := self.rfile.readline().decode().strip():
            self.server.lines.append(line)
            if line.upper() == "DATA":
                self.say("354 go on")
                self.server.lines += iter(lambda: self.rfile.readline().decode().rstrip("\r\n"), ".")
            self.say("221 bye" if line.lower() == "quit" else "250 ok")

    def say(self, text) -> None:
        self.wfile.write(f"{text}\r\n".encode())


def test_an_email_is_sent_of_the_ends_it_was_asked_for(store, monkeypatch) -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), Mail) as server:
        server.lines = []
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        monkeypatch.setenv("PAIBOOK_SMTP", f"127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("PAIBOOK_SMTP_FROM", "jobs@example.org")
        wanted = Notification(email=("a@example.org", "b@example.org"), on=("failure", "success"))
        run = failed_run(store, replace(JOB, notify=wanted))
        assert notify(replace(run, state="stopped")) == []
        assert notify(run) == []
        thread.join()
    assert [line.split()[0] for line in server.lines if "TO:<" in line.upper()] == ["rcpt", "rcpt"]
    for line in ("From: jobs@example.org", "To: a@example.org, b@example.org", "Subject: job a: failed: cell 1 failed"):
        assert line in server.lines
    assert "here" in server.lines


def test_a_notification_that_fails_is_said_and_fails_nothing(store, monkeypatch) -> None:
    monkeypatch.setenv("PAIBOOK_SMTP", "127.0.0.1:1")
    run = failed_run(store, replace(JOB, notify=Notification("env:NO_SUCH_HOOK", ("a@example.org",))))
    problems = notify(run)
    assert "NO_SUCH_HOOK is not set" in problems[0]
    assert "no e-mail was sent" in problems[1]


def test_an_output_folder_that_cannot_be_written_is_named(tmp_path, notebook_of) -> None:
    (tmp_path / "file").touch()
    path = notebook_of(tmp_path / "a.ipynb", "1")
    with pytest.raises(DataError, match=r"the output folder '.*file/out' cannot be written to"):
        write_outputs(replace(JOB, output=str(tmp_path / "file" / "out")), "run", path, tmp_path)


def test_a_full_disk_is_named(tmp_path, notebook_of) -> None:
    path, out = notebook_of(tmp_path / "a.ipynb", "1"), tmp_path / "out"
    out.mkdir()
    (out / "run.ipynb").symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"the output folder '.*out' cannot be written to: No space left on device"):
        write_outputs(replace(JOB, output=str(out)), "run", path, tmp_path)


def test_a_read_only_folder_is_named(tmp_path, notebook_of) -> None:
    path, out = notebook_of(tmp_path / "a.ipynb", "1"), tmp_path / "out"
    out.mkdir(mode=0o555)
    me = os.geteuid()
    if me == 0:  # whom no mode keeps out
        os.seteuid(65534)
    try:
        with pytest.raises(DataError, match=r"the output folder '.*out' cannot be written to: Permission denied"):
            write_outputs(replace(JOB, output=str(out)), "run", path, tmp_path)
    finally:
        os.seteuid(me)


async def test_a_notebook_that_could_not_be_saved_is_no_success(store, tmp_path, notebook_of, monkeypatch) -> None:
    async def end(attempt, notebook):
        return Ending("done")

    monkeypatch.setattr(Attempt, "_execute", end)
    path = notebook_of(tmp_path / "a.ipynb", "1")
    run_id = store.add_run(replace(JOB, notebook=str(path)), "user")
    folder = store.folder(run_id)
    folder.mkdir(parents=True)
    attempt = Attempt(store.run(run_id), folder, None)
    assert await attempt.carry_out() == Ending("done")
    (folder / "output.ipynb.new").symlink_to("/dev/full")
    ending = await attempt.carry_out()
    assert ending == Ending("failed", f"the notebook could not be saved in {folder}: No space left on device")
    assert json.loads((folder / "output.ipynb").read_text())["cells"], "what was saved before is kept"


def test_retries_wait_twice_as_long_each_time(store) -> None:
    job = replace(JOB, retries=2, backoff=10)
    run_id = store.add_run(job, "user")
    waits = []
    for _ in range(2):
        assert claim(store, run_id)
        run = store.run(run_id)
        assert retry(store, run, "failed", "")
        waits.append(round(store.run(run_id).due - run.heartbeat))
    assert waits == [10, 20]
    assert claim(store, run_id)
    assert not retry(store, store.run(run_id), "failed", "")


def test_old_runs_are_forgotten_and_followers_queued_once(store) -> None:
    store.save(JOB)
    store.save(Job.from_dict({"name": "b", "notebook": "b.ipynb", "after": [{"job": "a", "when": "failure"}]}))
    assert queue_followers(store) == []
    runs = [failed_run(store, JOB)]
    assert len(queue_followers(store)) == 1
    assert queue_followers(store) == []
    runs += [failed_run(store, JOB) for _ in range(2)]
    assert len(store.forget_runs("a", keep=1)) == 2
    assert len(store.runs("a")) == 1


def test_the_kernels_environment(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("SECRET", "sesame")
    job = replace(JOB, variables={"TOKEN": "env:SECRET", "A": "1"}, cluster="tcp://host:1")
    made = kernel_environment(job, "run")
    assert (made["TOKEN"], made["A"], made["PAIBOOK_CLUSTER"]) == ("sesame", "1", "tcp://host:1")
    with pytest.raises(PlanError, match="NO_SUCH is not set where the job runs"):
        kernel_environment(replace(JOB, variables={"TOKEN": "env:NO_SUCH"}), "run")
    with pytest.raises(PlanError, match="has no Python that can be run"):
        interpreter(str(tmp_path))


def test_what_was_run_is_recorded(tmp_path, notebook_of) -> None:
    (tmp_path / "data.csv").write_text("1")
    path = notebook_of(tmp_path / "a.ipynb", ("data = ''\nseed = 1", "parameters"))
    notebook = json.loads(path.read_text())
    job = replace(JOB, notebook=str(path), parameters={"data": "data.csv", "seed": 7})
    python = Interpreter("3.12.1", "/usr/bin/python", ("numpy==2.1.0",))
    first = provenance(job, notebook, python)
    assert (first["seed"], first["data"]["data"]["bytes"], first["environment"]["kernel"]) == ("7", 1, "python3")
    assert (first["packages"], first["environment"]["python"]) == (["numpy==2.1.0"], "3.12.1")
    newer = provenance(job, notebook, replace(python, packages=("numpy==2.2.0",)))
    assert list(differences(first, newer)) == ["lock", "packages.numpy"]
    (tmp_path / "data.csv").write_text("2")
    assert list(differences(first, provenance(job, notebook, python))) == ["data.data.sha256"]
