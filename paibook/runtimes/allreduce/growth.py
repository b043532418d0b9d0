"""More ranks for a training that runs on fewer than it asked for: room is looked for beside it.

Newcomers are started while the others train. Once they are ready, the ranks are asked to leave at their next commit, so
that no step is lost, and the cell goes on from there on all of them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from paibook.clusters.contract import Cluster, Ranks
from paibook.errors import ClusterError, PlanError, RankLost
from paibook.plan import Plan
from paibook.resources import Resources
from paibook.runtimes.allreduce import worker
from paibook.runtimes.allreduce.cell import REGROUP
from paibook.runtimes.workers import workers_on

LOOK_SECONDS = 1.0
READY_SECONDS = 60.0  # for newcomers to import torch

logger = logging.getLogger(__name__)


class Growth:
    """Looks for room while ranks run a cell.

    Args:
        cluster: Where.
        resources: What the cell asks for.
        wanted: The most ranks that it may have.
    """

    def __init__(self, cluster: Cluster, resources: Resources, wanted: int) -> None:
        self._cluster, self._resources, self._wanted = cluster, resources, wanted
        self._size = 0  # ranks that are ready, with the newcomers

    @contextmanager
    def sought(self, ranks: Ranks, keeps: Callable[[], bool]) -> Iterator[None]:
        """While the block runs these ranks, start others where there is room, and ask these to leave at a commit.

        Args:
            keeps: Whether the cell has registered a state: another cannot go on with more ranks.
        """
        self._size = ranks.size
        if ranks.size >= self._wanted:
            yield
            return
        over = threading.Event()
        seek = threading.Thread(target=self._seek, args=(ranks, keeps, over), name="paibook-growth", daemon=True)
        seek.start()
        try:
            yield
        finally:
            over.set()  # and no join: Stop need not wait for a process that is just being started

    def larger(self, ranks: Ranks) -> Ranks:
        """The group with its newcomers; the same as before where they are gone again."""
        try:
            return workers_on(self._cluster, self._resources, self._size)
        except (ClusterError, PlanError):
            logger.info("newcomers have gone again", exc_info=True)
            return ranks

    def _seek(self, ranks: Ranks, keeps: Callable[[], bool], over: threading.Event) -> None:
        while not over.wait(LOOK_SECONDS):
            if not keeps():
                continue
            try:
                if self._size == ranks.size:
                    self._size = self._started(ranks)
            except (ClusterError, PlanError, RankLost):
                # Somebody else has taken the place, or it has no card: perhaps later.
                logger.debug("no rank was added", exc_info=True)
            if self._size > ranks.size:
                ranks.notify(REGROUP)

    def _started(self, ranks: Ranks) -> int:
        """Start as many as there is room for; returns how many there are then."""
        size = min(self._wanted, possible(self._cluster, ranks.role))
        if size <= ranks.size:
            return ranks.size
        fresh = workers_on(self._cluster, self._resources, size)
        for pending in fresh.apply(worker.get_ready, ranks=range(ranks.size, size)):
            pending.result(READY_SECONDS)
        return size


def possible(cluster: Cluster, role: str) -> int:
    """How many ranks of a role the cluster could hold now: those there are, and those for which there is room."""
    status = cluster.status()
    return status.free + sum(rank.role == role and rank.state != "lost" for rank in status.ranks)


def first_ranks(plan: Plan, cluster: Cluster) -> Ranks:
    """The ranks a plan asks for; fewer where there is no room for all and ``--min-workers`` allows that.

    Raises:
        ClusterError, PlanError: There is too little room.
    """
    asked = plan.resources.workers
    fewest = plan.options.get("min_workers")
    cluster.start()
    try:
        return workers_on(cluster, plan.resources, asked)
    except (ClusterError, PlanError) as error:
        refusal = error
    if fewest is not None and plan.targets is None:
        for size in range(min(asked - 1, possible(cluster, "worker")), fewest - 1, -1):
            try:
                return workers_on(cluster, plan.resources, size)
            except (ClusterError, PlanError):
                logger.debug("there is no room for %d ranks", size, exc_info=True)
    raise refusal
