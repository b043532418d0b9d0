"""Starts and ends rank processes on the machine of one Dask worker; runs inside that worker.

``dask_worker`` is filled in by Dask's ``Client.run``. What is imported here is imported on every worker while the
first cell waits for its ranks: no client of ipyparallel, which takes a fifth of a second.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import IO, Any

from paibook.clusters import lifeline
from paibook.clusters.cards import CardSurvey
from paibook.errors import PaibookError
from paibook.gpus import Device, Holder, LeaseBook, discover

logger = logging.getLogger(__name__)
LOG_TAIL_LINES = 12
THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass
class _Hosted:
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    session: str
    folder: str
    lease: str


# One table per process. A Dask worker's address is part of the key, since several workers may share a process.
_hosted: dict[tuple[str, int], _Hosted] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class CardOrder:
    """Cards that a rank is to hold.

    Attributes:
        devices: Which.
        share: Percent of each.
        within: Id of the lease of its notebook's kernel, or empty.
        name: Of the rank, for people.
    """

    devices: Sequence[Device]
    share: int
    within: str
    name: str


def start(
    session: str, topic: str, message: dict[str, Any], cards: CardOrder | None = None, dask_worker: Any = None
) -> int:
    """Start one rank process here; when it ends, the Dask event ``topic`` says so.

    Args:
        session: Whose rank it is.
        topic: Each event is ``{"id", "pid", "cause"}``.
        message: For ``paibook.clusters.engine``.
        cards: The GPUs it gets; None for none.
        dask_worker: The ``distributed.Worker``.

    Returns:
        The process id.

    Raises:
        PlanError: Somebody else took one of the cards meanwhile.
    """
    lease = _take(cards)
    try:
        with _lock:
            key = _spawn(dask_worker, session, message, lease)
        if lease:
            LeaseBook().hand_over(lease, key[1])
    except BaseException:
        _give_back(lease)
        raise

    def tell(cause: str) -> None:
        dask_worker.log_event(topic, {"id": message["id"], "pid": key[1], "cause": cause})

    threading.Thread(target=_watch, args=(key, tell), name="paibook-rank-watch", daemon=True).start()
    return key[1]


def count(dask_worker: Any = None) -> int:
    """How many ranks, of every session, live on this worker."""
    with _lock:
        hosted = [h for (address, _pid), h in _hosted.items() if address == dask_worker.address]
    return sum(h.process.poll() is None for h in hosted)


def kill(pids: Sequence[int], dask_worker: Any = None) -> None:
    """End rank processes at once, with everything they started."""
    for pid in pids:
        with _lock:
            hosted = _hosted.get((dask_worker.address, pid))
        if hosted is not None:
            lifeline.kill(hosted.process)
            hosted.process.wait()  # so that its place counts as free once this returns


def kill_session(session: str, dask_worker: Any = None) -> None:
    """End every rank of a session on this worker."""
    here = dask_worker.address
    with _lock:
        pids = [pid for (address, pid), hosted in _hosted.items() if hosted.session == session and address == here]
    kill(pids, dask_worker)


def survey_cards() -> CardSurvey:
    """This machine's GPUs, and who holds them."""
    devices = discover()
    return CardSurvey(socket.gethostname(), devices, LeaseBook().held() if devices else [])


def _watch(key: tuple[str, int], tell: Callable[[str], None]) -> None:
    hosted = _hosted[key]
    code = hosted.process.wait()
    lifeline.kill(hosted.process)  # what it started lives in its session, and would outlive it
    _give_back(hosted.lease)
    with _lock:
        del _hosted[key]
    tell(_with_last_words(lifeline.exit_cause(code), hosted.log) if code else "its process ended")
    hosted.log.close()
    shutil.rmtree(hosted.folder, ignore_errors=True)
    lifeline.cut(hosted.process)


def _spawn(worker: Any, session: str, message: dict[str, Any], lease: str) -> tuple[str, int]:
    """Start a rank's process; returns its key in the table."""
    folder = tempfile.mkdtemp(prefix="paibook-engine-")
    log = tempfile.TemporaryFile(prefix="paibook-rank-")  # noqa: SIM115 (closed when the rank has ended)
    process = lifeline.spawn(
        "paibook.clusters.engine", {**message, "folder": folder}, stdout=log, stderr=log, env=_environment()
    )
    key = (worker.address, process.pid)
    _hosted[key] = _Hosted(process, log, session, folder, lease)
    return key


def _take(cards: CardOrder | None) -> str:
    """Lease a rank's cards, for this process until the rank's is there; returns the lease's id, or empty."""
    if cards is None:
        return ""
    holder = Holder.of("rank", cards.name)
    return LeaseBook().take(cards.devices, holder, share=cards.share, within=cards.within)[0].id


def _give_back(lease: str) -> None:
    if not lease:
        return
    try:
        LeaseBook().give_back(lease)
    except PaibookError:  # it ends with the process all the same
        logger.warning("a rank's GPU lease was not given back", exc_info=True)


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
