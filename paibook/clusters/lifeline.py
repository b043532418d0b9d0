"""A child process that ends with its parent: its standard input is a pipe the parent holds open.

However the parent ends, ``kill -9`` included, the pipe closes, and the child takes its whole session with it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import IO, Any

from paibook.errors import ClusterError

_folder: str | None = None


def spawn(module: str, message: Mapping[str, Any], **options: Any) -> subprocess.Popen[bytes]:
    """Start ``python -m module`` in its own session and hand it ``message`` over the pipe.

    Secrets travel in the message: never on the command line, in the environment or on disk.

    Args:
        module: Calls ``receive`` first thing.
        message: JSON-able.
        **options: For ``subprocess.Popen``.

    Raises:
        ClusterError: This system has no sessions of processes.
    """
    if os.name != "posix":
        raise ClusterError(
            "ranks need a POSIX system (Linux, macOS or WSL), in the notebook and on every worker; "
            "here, `%pai_cluster attach inline` runs them as threads"
        )
    # Stop signals the notebook's whole process group, so children live in their own session.
    process = subprocess.Popen([sys.executable, "-m", module], stdin=subprocess.PIPE, start_new_session=True, **options)
    pipe = _pipe(process)
    pipe.write(json.dumps(dict(message)).encode() + b"\n")
    pipe.flush()
    return process


def receive(on_end: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """In the child: take the parent's message, and from then on die with the parent.

    Args:
        on_end: Called with the message before the child's session is killed.
    """
    global _folder
    pipe = os.fdopen(os.dup(0), "rb")
    message: dict[str, Any] = json.loads(pipe.readline())
    _folder = message.get("folder")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)  # user code that reads stdin sees its end, not the lifeline
    os.close(null)
    threading.Thread(target=_watch, args=(pipe, lambda: on_end(message)), name="paibook-lifeline", daemon=True).start()
    return message


def own_folder() -> str | None:
    """The folder that is removed when this process ends, however it does; None where its parent gave it none."""
    return _folder


def cut(process: subprocess.Popen[bytes]) -> None:
    """Close the pipe: the child ends by itself."""
    _pipe(process).close()


def kill(process: subprocess.Popen[bytes]) -> None:
    """End the child and everything in its session at once."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()


def exit_cause(code: int) -> str:
    """An exit code in words: ``killed by SIGKILL`` or ``exited with code 3``."""
    if code >= 0:
        return f"its process exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (the system may be out of memory)" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{hint}"


def _watch(pipe: IO[bytes], on_end: Callable[[], None]) -> None:
    pipe.read()
    try:
        on_end()
    finally:
        os.killpg(os.getpgrp(), signal.SIGKILL)


def _pipe(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdin is not None
    return process.stdin
