"""Starting the host process of a detached run, and what it is told over its standard input."""

from __future__ import annotations

import json
import pickle
import select
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import cloudpickle

from paibook.detached.handle import LOG, DetachedRun, last_words
from paibook.errors import PlanError, RunError
from paibook.history import RunHistory
from paibook.plan import Plan

READY = b"ready\n"
START_SECONDS = 60.0


def launch(plan: Plan, variables: Mapping[str, Any], history: RunHistory) -> DetachedRun:
    """Give a checked plan to a host process in a session of its own; returns once that has taken it.

    Raises:
        PlanError: A variable cannot be sent, or not be read there; names it.
        RunError: The host process did not come up; says what it printed last.
    """
    _run_id, directory = history.new_directory(plan.runtime)
    try:
        with (directory / LOG).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "paibook.detached.host", str(directory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # neither Stop nor the end of the notebook's process group reaches it
            )
        try:
            _hand_over(process, plan, variables, directory)
        except BaseException:
            process.kill()
            process.wait()
            raise
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    threading.Thread(target=process.wait, name=f"paibook-host-{process.pid}", daemon=True).start()  # no zombie
    return DetachedRun(directory.name, history)


def _hand_over(process: subprocess.Popen[bytes], plan: Plan, variables: Mapping[str, Any], directory: Path) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdout as answers:
        with suppress(BrokenPipeError):  # what it says, or its log, tells why; to close is to flush
            try:
                _send(process.stdin, plan, variables)
            finally:
                process.stdin.close()
        heard, _, _ = select.select([answers], [], [], START_SECONDS)
        answer = answers.readline() if heard else b""
    if answer == READY:
        return
    if answer:
        raise PlanError(json.loads(answer)["error"])
    why = "ended" if heard else f"did not answer for {START_SECONDS:.0f} s"
    raise RunError(f"the host process of the detached run {why}{last_words(directory)}")


def _send(pipe: IO[bytes], plan: Plan, variables: Mapping[str, Any]) -> None:
    head = {"plan": plan.to_json(), "path": sys.path, "variables": list(variables)}
    pipe.write(json.dumps(head).encode() + b"\n")
    for name, value in variables.items():
        try:
            cloudpickle.dump(value, pipe, protocol=5)
        except BrokenPipeError:
            raise
        except Exception as error:  # whatever the user's object raises while it is pickled
            raise PlanError(
                f"--detach: the variable {name!r}, a {type(value).__name__}, cannot be sent to the process that "
                f"carries the run out ({error}); write it to a file, or leave --detach out"
            ) from error


def receive(pipe: IO[bytes]) -> tuple[Plan, dict[str, Any]]:
    """In the host process: the plan and the variables.

    Raises:
        EOFError: The notebook ended before it had said all.
        PlanError: A variable cannot be read here; names it.
    """
    line = pipe.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    head = json.loads(line)
    sys.path.extend(folder for folder in head["path"] if folder not in sys.path)
    variables = {}
    for name in head["variables"]:
        try:
            variables[name] = pickle.load(pipe)
        except (EOFError, pickle.UnpicklingError):
            raise EOFError from None
        except Exception as error:  # a module that is not found, a class that cannot be made again
            raise PlanError(
                f"--detach: the variable {name!r} cannot be read in the process that carries the run out "
                f"({type(error).__name__}: {error})"
            ) from error
    return Plan.from_json(head["plan"]), variables
