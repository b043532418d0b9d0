"""The host process of one detached run: ``python -m paibook.detached.host FOLDER``. It carries the run out and ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import IO

from paibook.clusters import connect
from paibook.detached.launch import READY, receive
from paibook.detached.outcome import Outcome
from paibook.errors import PaibookError
from paibook.plan import Plan
from paibook.run import Run, RunRecord
from paibook.session import driver_of
from paibook.settings import settings

CLOSE_SECONDS = 30.0  # for the cluster to end, before this process does


def main(arguments: list[str]) -> int:
    """Take the plan from the notebook, say so, and carry it out; 0 where that went well."""
    directory = Path(arguments[0])
    orders, answers = _own_streams()
    try:
        with orders:
            plan, variables = receive(orders)
    except EOFError:
        shutil.rmtree(directory, ignore_errors=True)  # the notebook died, and nobody knows of the run
        return 1
    except PaibookError as error:
        with answers:
            answers.write(json.dumps({"error": str(error)}).encode() + b"\n")
        return 1
    began = (directory.name, plan.name, plan.runtime, plan.cluster, "running", time.time())
    record = RunRecord(*began, pid=os.getpid(), job=settings().job_run, detached=True)
    run = Run(record, plan, directory, variables)
    del variables
    try:
        with answers:
            answers.write(READY)
    except BrokenPipeError:
        pass  # the notebook died, and can find the run when it is back
    return carry_out(run, plan, directory)


def carry_out(run: Run, plan: Plan, directory: Path) -> int:
    """Run it to its end, leave its outcome, and end what was started for it."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_signal: run.cancel())
    cluster = connect(plan.cluster)
    try:
        run.start(driver_of(plan.runtime), cluster)
        error = run.exception()
        Outcome(None if error is not None else run.result(), error).save(directory)
    finally:
        # Whatever holds the cluster's end up: without this process, all that hangs on it ends.
        alarm = threading.Timer(CLOSE_SECONDS, os._exit, (1,))
        alarm.daemon = True
        alarm.start()
        cluster.close()
    return 0 if error is None else 1


def _own_streams() -> tuple[IO[bytes], IO[bytes]]:
    """The pipes from and to the notebook; standard input is empty from now on, and output goes to the log."""
    orders, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return orders, answers


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
