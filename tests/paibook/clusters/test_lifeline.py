"""A child ends with its parent, however the parent ends. Real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from paibook.clusters import lifeline
from paibook.errors import ClusterError

ROOT = Path(__file__).resolve().parents[3]
WAIT = 20

# Says who it is and what it was told, then starts a process of its own and waits for ever.
CHILD = """
import json, os, pathlib, subprocess, sys, threading
from paibook.clusters import lifeline
message = lifeline.receive(lambda message: pathlib.Path(message["note"]).write_text(message["secret"]))
grandchild = subprocess.Popen(["sleep", "300"])
told = {"pid": os.getpid(), "grandchild": grandchild.pid, "message": message, "stdin": sys.stdin.read()}
print(json.dumps(told), flush=True)
threading.Event().wait()
"""
# Hands the child's words on, and waits to be killed.
PARENT = """
import json, subprocess, sys, threading
from paibook.clusters import lifeline
child = lifeline.spawn("child", json.loads(sys.stdin.readline()), stdout=subprocess.PIPE)
print(child.stdout.readline().decode(), flush=True)
threading.Event().wait()
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Where ``python -m child`` finds the child."""
    (tmp_path / "child.py").write_text(CHILD)
    (tmp_path / "parent.py").write_text(PARENT)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}


@pytest.fixture
def message(tmp_path: Path) -> dict[str, str]:
    return {"secret": "s3cret-k3y", "note": str(tmp_path / "note.txt")}


def ended(*pids: int) -> bool:
    """Whether the processes end in time; zombies have."""
    there = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    _gone, alive = psutil.wait_procs(there, timeout=WAIT)
    return not [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.slow
def test_kill_9_of_the_parent_ends_the_childs_whole_session(
    environment: dict[str, str], message: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "parent"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(json.dumps(message).encode() + b"\n")
        parent.stdin.flush()
        told = json.loads(parent.stdout.readline())
        assert os.getsid(told["pid"]) == told["pid"]
        assert os.getsid(told["grandchild"]) == told["pid"]
        parent.kill()
    assert ended(told["pid"], told["grandchild"])
    assert (tmp_path / "note.txt").read_text() == "s3cret-k3y"


@pytest.mark.slow
class TestSpawned:
    @pytest.fixture
    def child(self, environment: dict[str, str], message: dict[str, str]) -> subprocess.Popen[bytes]:
        return lifeline.spawn("child", message, stdout=subprocess.PIPE, env=environment)

    def test_the_message_arrives_and_nowhere_else(
        self, child: subprocess.Popen[bytes], message: dict[str, str]
    ) -> None:
        assert child.stdout is not None
        told = json.loads(child.stdout.readline())
        process = psutil.Process(child.pid)
        assert told["message"] == message
        assert told["stdin"] == ""  # what the child's own code reads is empty, not the lifeline
        assert message["secret"] not in " ".join(process.cmdline())
        assert message["secret"] not in " ".join(process.environ().values())

        # Cut: the child ends by itself, and takes its own along.
        lifeline.cut(child)
        assert child.wait(WAIT) == -signal.SIGKILL
        assert ended(told["grandchild"])
        child.stdout.close()

    def test_kill_ends_the_session_at_once(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        told = json.loads(child.stdout.readline())
        lifeline.kill(child)
        assert child.wait(WAIT) == -signal.SIGKILL
        assert ended(told["grandchild"])
        lifeline.kill(child)  # a second time does nothing
        lifeline.cut(child)
        child.stdout.close()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "its process exited with code 0"),
        (3, "its process exited with code 3"),
        (-signal.SIGSEGV, "its process was killed by SIGSEGV"),
        (-signal.SIGKILL, "its process was killed by SIGKILL (the system may be out of memory)"),
        (-250, "its process was killed by signal 250"),
    ],
)
def test_exit_codes_in_words(code: int, words: str) -> None:
    assert lifeline.exit_cause(code) == words


def test_a_system_without_sessions_of_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(lifeline.os, "name", "nt")
        with pytest.raises(ClusterError, match="ranks need a POSIX system"):
            lifeline.spawn("paibook.clusters.controller", {})
