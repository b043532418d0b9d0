"""Serving: a side's process starts up, says so, and runs the jobs that come as lines of JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

READY = "ready"


def workers() -> int:
    """How many workers this process was asked to start: its first argument."""
    return int(sys.argv[1])


def serve(jobs: Mapping[str, Callable[..., None]]) -> None:
    """Answer each line ``{"job": NAME, "files": [...], "out": PATH, ...}`` with ``{"seconds": ...}`` until there are
    no more. A job reads the files and writes the folder ``out``, which is not there yet.
    """
    replies = sys.stdout
    sys.stdout = sys.stderr  # what a library prints is no reply
    _say(replies, {READY: True})
    for line in sys.stdin:
        request = json.loads(line)
        began = time.perf_counter()
        jobs[request.pop("job")](**request)
        _say(replies, {"seconds": time.perf_counter() - began})


def file_of(out: str, number: int) -> str:
    """The name of a part file in a job's output folder, which is made."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder / f"part-{number:05}.parquet")


def _say(replies: Any, reply: dict[str, Any]) -> None:
    replies.write(json.dumps(reply) + "\n")
    replies.flush()
