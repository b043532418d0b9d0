"""paibook: cells of ``%%pai_ps``, run through a session as the notebook runs them."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

import paibook as pai
from benchmarks.ps_jobs import crossed, work
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook.session import Session

TRANSFERS = """
from benchmarks.ps_jobs import paibook_side

def train(ps):
    return paibook_side.transfers(ps)
"""
TOGETHER = TRANSFERS.replace("transfers", "together")
LOGISTIC = TRANSFERS.replace("transfers", "logistic")


@dataclass(frozen=True)
class Run:
    """A cell, and how many processes run it."""

    source: str
    servers: int = 1
    workers: int = 1
    replicas: int = 0


RUNS = {
    "transfers": Run(TRANSFERS),
    "one server": Run(TOGETHER, 1, 2),
    "two servers": Run(TOGETHER, 2, 2),
    "unreplicated": Run(TOGETHER, 2, 1),
    "replicated": Run(TOGETHER, 2, 1, 1),
    "logistic": Run(LOGISTIC, 1, 2),
}


class RemoteTable:
    """A job's table, declared on the servers."""

    def __init__(self, ps: Any, job: work.Job) -> None:
        name = job.name.replace(" ", "_")
        self._whole = None if job.keys else np.empty((job.rows, job.width), np.float32)
        if job.keys:
            self._table = ps.table(
                name, sparse=True, width=job.width, optimizer=pai.Adagrad(lr=work.LR, epsilon=work.EPSILON)
            )
        else:
            self._table = ps.table(name, shape=(job.rows, job.width), optimizer=pai.SGD(lr=work.LR))

    def pull(self, keys: work.Keys | None) -> work.Array:
        """See ``work.Table``."""
        rows: work.Array = self._table.pull(keys, out=self._whole)
        return rows

    def push(self, keys: work.Keys | None, gradient: work.Array) -> None:
        """See ``work.Table``."""
        ticket = self._table.push(gradient) if keys is None else self._table.push(keys, gradient)
        self._table.wait(ticket)


def transfers(ps: Any) -> work.Found:
    """One worker's ``train``: every job."""
    return work.found(lambda job: RemoteTable(ps, job))


def together(ps: Any) -> float | None:
    """The ``train`` of one of several workers: the sparse job, all at once."""
    table = RemoteTable(ps, work.SPARSE)
    return work.keys_a_second(work.SPARSE, table, ps.rank, ps.world_size, lambda: _meet(ps))


def logistic(ps: Any) -> tuple[float, float, float]:
    """The ``train`` of logistic regression: when it began and ended, in seconds, and the log-loss on the test rows."""
    rows, test = crossed.rows(crossed.TRAIN), crossed.rows(crossed.TEST)
    batches = [crossed.Batch.of(part) for part in rows.share(ps.rank, ps.world_size).parts(crossed.BATCH_ROWS)]
    weights = ps.table("weights", sparse=True, optimizer=pai.FTRL(alpha=crossed.ALPHA, beta=crossed.BETA))
    _meet(ps)
    began = time.time()
    turns = batches * crossed.PASSES
    ticket = weights.prefetch(turns[0].keys)
    for batch, after in zip(turns, [*turns[1:], None], strict=True):
        pulled = ticket.result()[:, 0]
        if after is not None:
            ticket = weights.prefetch(after.keys)  # on their way while the gradient is computed
        pushed = weights.push(batch.keys, batch.gradient(pulled)[:, None])
    weights.wait(pushed)
    ended = time.time()
    _meet(ps, "ended")
    batch = crossed.Batch.of(test)
    return began, ended, batch.loss(weights.pull(batch.keys)[:, 0])


def _meet(ps: Any, name: str = "ready") -> None:
    """Wait until every worker has come here."""
    here = ps.table(name, shape=1, optimizer=pai.SGD(lr=-1.0))
    here.push(np.ones(1, np.float32))
    while here.pull()[0] < ps.world_size:
        time.sleep(0.001)


def main() -> None:
    """Start the embedded cluster, run the cell that the command line names, write what came of it."""
    name = sys.argv[2]
    run = RUNS[name]
    options = {"consistency": "asp", "replicas": run.replicas}
    session = Session()
    session.cluster.start()
    resources = Resources(workers=run.workers, servers=run.servers)
    plan = Plan("ps", Program(run.source, "cell"), resources, session.cluster.reference, options=options)
    returned = session.run(plan).result().returned
    session.close()
    if run.source == TRANSFERS:
        work.write(returned[0])
    elif run.source == TOGETHER:
        work.write({work.SPARSE.name: None if None in returned else sum(returned)})
    else:
        seconds = max(ended for _, ended, _ in returned) - min(began for began, _, _ in returned)
        work.write(crossed.found(seconds, returned[0][2]))


if __name__ == "__main__":
    main()
