"""Starts and ends rank processes on the machine of one Dask worker; runs inside that worker."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import IO, Any

from paibook.clusters import lifeline
from paibook.errors import ClusterError

LOG_TAIL_LINES = 12
THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass
class _Hosted:
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    session: str
    folder: str
    cards: tuple[str, ...]


# One table per process. A Dask worker's address is part of the key, since several workers may share a process.
_hosted: dict[tuple[str, int], _Hosted] = {}
_lock = threading.Lock()


def start(worker: Any, session: str, topic: str, message: dict[str, Any], cards: Sequence[str] = ()) -> int:
    """Start one rank process here; when it ends, the Dask event ``topic`` says so.

    Args:
        worker: The ``distributed.Worker``.
        session: Whose rank it is.
        topic: Each event is ``{"id", "pid", "cause"}``.
        message: For ``paibook.clusters.engine``.
        cards: UUIDs of the GPUs it gets.

    Returns:
        The process id.

    Raises:
        ClusterError: Another rank got one of the cards meanwhile.
    """
    with _lock:  # held throughout, so that two notebooks cannot take one card
        taken = {card for hosted in _hosted.values() if hosted.process.poll() is None for card in hosted.cards}
        if not taken.isdisjoint(cards):
            raise ClusterError(f"another notebook took the GPU {min(taken & set(cards))} meanwhile; run the cell again")
        folder = tempfile.mkdtemp(prefix="paibook-engine-")
        log = tempfile.TemporaryFile(prefix="paibook-rank-")  # noqa: SIM115 (closed when the rank has ended)
        process = lifeline.spawn(
            "paibook.clusters.engine", {**message, "folder": folder}, stdout=log, stderr=log, env=_environment()
        )
        key = (worker.address, process.pid)
        _hosted[key] = _Hosted(process, log, session, folder, tuple(cards))

    def tell(cause: str) -> None:
        worker.log_event(topic, {"id": message["id"], "pid": process.pid, "cause": cause})

    threading.Thread(target=_watch, args=(key, tell), name="paibook-rank-watch", daemon=True).start()
    return process.pid


def count(worker: Any) -> int:
    """How many ranks, of every session, live on this worker."""
    with _lock:
        hosted = [h for (address, _pid), h in _hosted.items() if address == worker.address]
    return sum(h.process.poll() is None for h in hosted)


def held_cards(worker: Any) -> dict[int, tuple[str, ...]]:
    """UUIDs of the GPUs that live ranks of every session hold on this worker, by process id."""
    with _lock:
        hosted = [h for (address, _pid), h in _hosted.items() if address == worker.address]
    return {h.process.pid: h.cards for h in hosted if h.cards and h.process.poll() is None}


def kill(worker: Any, pids: Sequence[int]) -> None:
    """End rank processes at once, with everything they started."""
    for pid in pids:
        with _lock:
            hosted = _hosted.get((worker.address, pid))
        if hosted is not None:
            lifeline.kill(hosted.process)
            hosted.process.wait()  # so that its place counts as free once this returns


def kill_session(worker: Any, session: str) -> None:
    """End every rank of a session on this worker."""
    with _lock:
        pids = [pid for (address, pid), h in _hosted.items() if h.session == session and address == worker.address]
    kill(worker, pids)


def _watch(key: tuple[str, int], tell: Callable[[str], None]) -> None:
    hosted = _hosted[key]
    code = hosted.process.wait()
    lifeline.kill(hosted.process)  # what it started lives in its session, and would outlive it
    with _lock:
        del _hosted[key]
    tell(_with_last_words(lifeline.exit_cause(code), hosted.log) if code else "its process ended")
    hosted.log.close()
    shutil.rmtree(hosted.folder, ignore_errors=True)
    lifeline.cut(hosted.process)


def _environment() -> dict[str, str]:
    # Dask gives its workers one thread for each of these; ranks take the notebook's own settings instead.
    return {name: value for name, value in os.environ.items() if name not in THREAD_SETTINGS}


def _with_last_words(cause: str, log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    if not lines:
        return cause
    return cause + "; its last words:\n  " + "\n  ".join(_last_words(lines))


def _last_words(lines: Sequence[str]) -> Sequence[str]:
    """The end of a log; of Python's report on a crash, the frames of the thread that crashed, the innermost first."""
    crashed = [number for number, line in enumerate(lines) if line.startswith("Current thread")]
    if not crashed:
        return lines[-LOG_TAIL_LINES:]
    frames = list(takewhile(lambda line: line.startswith("  File"), lines[crashed[-1] + 1 :]))
    return [*(line for line in lines if line.startswith("Fatal Python error")), *frames[:LOG_TAIL_LINES]]
