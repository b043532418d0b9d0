"""One attempt from its claim to what follows from its end, in a process that is started for it."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
import threading
from typing import Any

from paibook.errors import PaibookError
from paibook.jobs.attempt import OUTPUT, SOURCE, Attempt, Ending
from paibook.jobs.claims import HEARTBEAT_SECONDS, beat, claim, queue_followers, retry
from paibook.jobs.notebook import check_job, read_notebook
from paibook.jobs.notification import notify
from paibook.jobs.outputs import write_outputs
from paibook.jobs.provenance import Interpreter, provenance
from paibook.jobs.records import DONE, FAILED, JobRun
from paibook.jobs.store import JobStore

LOG = "run.log"


def spawn(store: JobStore, run_id: str) -> subprocess.Popen[bytes]:
    """Start the process of a queued run, in a session of its own: it outlives whoever started it."""
    folder = store.folder(run_id)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    command = [sys.executable, "-m", "paibook.jobs.process", str(store.root), run_id]
    with (folder / LOG).open("ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def run_here(store: JobStore, run_id: str) -> bool:
    """Claim a run and carry one attempt out in this process; False where it was not to be had."""
    if not claim(store, run_id):
        return False
    run = store.run(run_id)
    folder = store.folder(run_id)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    attempt = Attempt(run, folder, _Record(store, run))
    ending = asyncio.run(_watched(store, attempt))
    conclude(store, run, ending, attempt.notes)
    return True


def conclude(store: JobStore, run: JobRun, ending: Ending, notes: list[str]) -> None:
    """Record how an attempt ended: another attempt, or the end of the run with all that follows from it."""
    if ending.state == FAILED and retry(store, run, ending.error, ending.traceback):
        return
    if ending.state == DONE:
        ending = _with_outputs(store, run)
    ended = store.finish(run.id, run.pid, ending.state, error=ending.error, traceback=ending.traceback)
    for note in notes:
        print(note, flush=True)
    if not ended:
        return
    for problem in notify(store.run(run.id)):
        print(problem, flush=True)
    queue_followers(store)
    if run.job.keep is not None:
        for old in store.forget_runs(run.job.name, run.job.keep):
            shutil.rmtree(store.folder(old), ignore_errors=True)


async def _watched(store: JobStore, attempt: Attempt) -> Ending:
    loop = asyncio.get_running_loop()
    attempt.handle_signals()
    over = threading.Event()

    def keep_beating() -> None:
        while not over.wait(HEARTBEAT_SECONDS):
            try:
                shall_stop = beat(store, attempt.run.id)
            except sqlite3.Error as error:  # a full disk, a database that is locked for long; the next may do
                print(f"no heartbeat: {error}", flush=True)
                continue
            if shall_stop:
                loop.call_soon_threadsafe(attempt.stop)
                return

    beating = threading.Thread(target=keep_beating, name="paibook-heartbeat", daemon=True)
    beating.start()
    try:
        return await attempt.carry_out()
    finally:
        over.set()
        beating.join()


class _Record:
    """Writes into the store how an attempt comes along."""

    def __init__(self, store: JobStore, run: JobRun) -> None:
        self._store = store
        self._run = run
        self._provenance(None)

    def waits(self, reason: str) -> None:
        self._update(error=reason)

    def started(self, interpreter: Interpreter) -> None:
        self._provenance(interpreter)

    def begins(self, cell: int) -> None:
        self._update(cell=cell)

    def _provenance(self, interpreter: Interpreter | None) -> None:
        kept = self._store.folder(self._run.id) / SOURCE
        try:
            notebook = read_notebook(kept) if kept.exists() else check_job(self._run.job)
        except PaibookError:
            return  # the attempt itself says so
        self._update(provenance=json.dumps(provenance(self._run.job, notebook, interpreter)))

    def _update(self, **columns: Any) -> None:
        try:
            self._store.update(self._run.id, **columns)
        except sqlite3.Error as error:  # a full disk: the notebook itself may still end well
            print(f"not recorded: {', '.join(columns)}: {error}", flush=True)


def _with_outputs(store: JobStore, run: JobRun) -> Ending:
    folder = store.folder(run.id)
    try:
        write_outputs(run.job, run.id, folder / OUTPUT, folder)
    except PaibookError as error:
        return Ending(FAILED, str(error))
    return Ending(DONE)
