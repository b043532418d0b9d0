"""Elastic training, the driver's side: a cell that keeps a state is run again when one of its ranks dies.

The model is torchelastic's and Horovod Elastic's: whoever is left is freed, the lost ranks are replaced (or left out),
a new group is formed, and all of it goes on from the last snapshot that every rank had committed. So it does when there
is room for more ranks, up to as many as were asked for.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

from paibook.clusters.contract import Cluster, Event, Ranks
from paibook.comms.backends import AUTO
from paibook.errors import ClusterError, RankLost
from paibook.plan import Plan
from paibook.runtimes.allreduce import worker
from paibook.runtimes.allreduce.cell import Cell, Report
from paibook.runtimes.allreduce.execution import Execution
from paibook.runtimes.allreduce.growth import Growth
from paibook.runtimes.allreduce.keeper import Kept, Mark, Recovery
from paibook.runtimes.allreduce.verdict import in_step, spell, unreceived
from paibook.runtimes.allreduce.worlds import identity_of, worlds_of
from paibook.runtimes.contract import RunContext
from paibook.runtimes.turns import check_before
from paibook.runtimes.workers import workers_on

MAX_RESTARTS = 3
ROOM_SECONDS = 10.0  # a Dask worker that dies with its rank is mostly back in a few seconds
ROOM_AGAIN_SECONDS = 0.3


class Attempts:
    """Runs a cell, again where the death of a rank can be made good.

    Args:
        plan: Its options ``max_restarts`` and ``min_workers`` are read here.
        cluster: Where it runs.
        cell: What runs.
        context: The run's.
    """

    def __init__(self, plan: Plan, cluster: Cluster, cell: Cell, context: RunContext) -> None:
        self._plan, self._cluster, self._context = plan, cluster, context
        self._cell: Cell | None = cell
        self._worlds = worlds_of(cluster)
        self._losses = Losses(int(plan.options.get("max_restarts", MAX_RESTARTS)))
        self._growth: Growth | None = None
        self._keeps = False
        self._kept: dict[tuple[str, int], Kept] = {}  # by process

    def run(self, ranks: Ranks) -> dict[int, Report]:
        """Run to the end; returns every rank's report, or raises what the user should see."""
        deadline = None if self._plan.timeout is None else time.monotonic() + self._plan.timeout
        if self._plan.targets is None and self._plan.options.get("min_workers") is not None:
            resources = self._plan.resources
            self._growth = Growth(self._cluster, resources, resources.workers or ranks.size)
        try:
            while True:
                reports = self._attempt(ranks, deadline)
                if not isinstance(reports, Ranks):
                    break
                ranks = reports
        finally:
            # An error keeps the frames it passed, and the session keeps the error: what was pushed must not stay.
            self._cell = None
        self._tell_unreceived(ranks, reports)
        if any(report.kept is not None for report in reports.values()):
            # What is left after an error goes with the next cell.
            ranks.apply(worker.forget)
        return reports

    def _tell_unreceived(self, ranks: Ranks, reports: Mapping[int, Report]) -> None:
        """Say when messages are left that a later cell's ``recv`` would get."""
        if not self._plan.options.get("check", True) or len(reports) < ranks.size:
            return
        before, self._worlds.unreceived = self._worlds.unreceived, unreceived(reports.values())
        count = self._worlds.unreceived - before
        if count > 0:
            which = "1 message was" if count == 1 else f"{count} messages were"
            text = f"{which} sent on comm and not received; a later cell's recv may get what was left\n"
            self._context.emit(Event("stderr", "run", -1, text))

    def _attempt(self, ranks: Ranks, deadline: float | None) -> dict[int, Report] | Ranks:
        """Run the cell once; gives the ranks to go on with where that takes another attempt."""
        assert self._cell is not None
        execution, world = None, None
        identity = identity_of(ranks)
        try:
            check_before(self._context)
            world = self._worlds.current(ranks, self._plan.options.get("backend", AUTO))
            self._cell = replace(self._cell, attempt=self._worlds.next_attempt())
            execution = Execution(ranks, world, self._cell, self._context, self._plan.timeout, deadline)
            reports = self._executed(execution, ranks)
            if not execution.left:
                return reports
            loss: RankLost | None = None
        except BaseException as error:
            if execution is not None and (execution.aborted or not self._in_step(execution)):
                self._worlds.give_up()
            if not isinstance(error, RankLost) or (world is not None and world.threads):
                raise
            loss = error
            reports = {} if execution is None else execution.reports
        self._kept |= {identity[r]: report.kept for r, report in reports.items() if report.kept is not None}
        if loss is None:
            return self._joined(ranks)
        lost = {loss.rank: loss} if execution is None else execution.lost
        self._keeps = self._keeps or (execution is not None and execution.keeps)
        self._losses.add(lost.values(), reports.values())
        return self._next(ranks, loss, lost.values())

    def _executed(self, execution: Execution, ranks: Ranks) -> dict[int, Report]:
        if self._growth is None:
            return execution.run()
        with self._growth.sought(ranks, lambda: execution.keeps):
            return execution.run()

    def _in_step(self, execution: Execution) -> bool:
        assert self._cell is not None
        return in_step(list(execution.reports.values()), len(self._cell.ranks))

    def _next(self, ranks: Ranks, loss: RankLost, lost: Iterable[RankLost]) -> Ranks:
        """Make the losses good; raises the loss where that cannot be."""
        assert self._cell is not None
        if not self._keeps or len(self._cell.ranks) < ranks.size:
            raise loss
        if self._losses.exhausted:
            raise self._losses.error(loss)
        fresh, how = self._replaced(ranks, loss)
        fresh.take_losses()  # what follows says it
        return self._going_on(fresh, f"{described(lost)}; {how}")

    def _joined(self, ranks: Ranks) -> Ranks:
        """The group with the ranks that have come."""
        assert self._growth is not None
        self._worlds.give_up()
        fresh = self._growth.larger(ranks)
        losses = fresh.take_losses()  # since the last commit
        count = fresh.size - ranks.size
        text = f"{count} rank{'' if count == 1 else 's'} joined" if count else "no rank joined after all"
        return self._going_on(fresh, f"{described(losses)}; replaced; {text}" if losses else text)

    def _going_on(self, fresh: Ranks, what: str) -> Ranks:
        assert self._cell is not None
        self._context.check_cancelled()
        by_rank = {r: self._kept[key] for r, key in enumerate(identity_of(fresh)) if key in self._kept}
        recovery = choose(by_rank)
        self._cell = replace(self._cell, ranks=tuple(range(fresh.size)), recovery=recovery)
        self._context.emit(Event("stderr", "run", -1, f"{what}; {_goes_on(recovery, fresh.size)}\n"))
        return fresh

    def _replaced(self, ranks: Ranks, loss: RankLost) -> tuple[Ranks, str]:
        """As many ranks as before, or fewer where the user allows that; and which of the two."""
        fewest = self._plan.options.get("min_workers")
        patience = time.monotonic() + (ROOM_SECONDS if fewest is None else 0.0)
        while True:
            try:
                return workers_on(self._cluster, self._plan.resources, ranks.size), "replaced"
            except ClusterError as error:
                self._context.check_cancelled()
                if time.monotonic() < patience:
                    time.sleep(ROOM_AGAIN_SECONDS)
                elif fewest is None:
                    raise loss from error
                else:
                    return self._fewer(ranks, loss, fewest), "there is no room for another"

    def _fewer(self, ranks: Ranks, loss: RankLost, fewest: int) -> Ranks:
        assert self._cell is not None
        left = self._cluster.without_lost(ranks.size, ranks.role)
        pulled = max((rank for _, rank in self._cell.pull if rank is not None), default=0)
        if left.size >= fewest and pulled < left.size:
            return left
        reason = f"--min-workers is {fewest}" if left.size < fewest else f"--pull needs rank {pulled}"
        raise RankLost(loss.role, loss.rank, f"{loss.cause}; there is no room for another, and {reason}")


class Losses:
    """Deaths of ranks in one run, and how many it may have.

    Args:
        most: ``--max-restarts``.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._steps: list[int | None] = []

    @property
    def exhausted(self) -> bool:
        """Whether there were too many."""
        return self._count > self._most

    def add(self, lost: Iterable[RankLost], reports: Iterable[Report]) -> None:
        """Count deaths; the survivors' reports say at which step they happened."""
        self._count += len(list(lost)) or 1
        steps = [r.kept.step for r in reports if r.kept is not None and r.kept.step is not None]
        self._steps.append(max(steps, default=None))

    def error(self, loss: RankLost) -> RankLost:
        """What to raise when there were too many."""
        text = f"{loss.cause}; that was death {self._count}, and --max-restarts is {self._most}"
        step = self._steps[0]
        if len(self._steps) > 1 and step is not None and set(self._steps) == {step}:
            text += f". It was at step {step} every time: the cell itself seems to end its rank there"
        return RankLost(loss.role, loss.rank, text)


def choose(kept: Mapping[int, Kept]) -> Recovery | None:
    """The last snapshot that every rank of its group had committed, and who has what of it.

    A rank's own entries lie with the rank after it too, which also shows that the rank had committed. Where no rank has
    entries of its own, those of one survivor serve all, and it is enough that all survivors have committed.

    Args:
        kept: What the ranks of the new group have, by rank; fresh ones have nothing.

    Returns:
        None where there is no such snapshot: the cell begins anew.
    """
    marks = {mark for k in kept.values() for mark in k.shared}
    for mark in sorted(marks, reverse=True):
        recovery = _recovery(mark, kept)
        if recovery is not None:
            return recovery
    return None


def _recovery(mark: Mark, kept: Mapping[int, Kept]) -> Recovery | None:
    shared = [rank for rank, k in kept.items() if mark in k.shared]
    parts = {old: rank for rank, k in sorted(kept.items()) for old in k.parts.get(mark, ())}
    whole = len(parts) == mark.size
    if not whole and (mark.per_rank or len(shared) < len([k for k in kept.values() if k.shared])):
        return None
    return Recovery(mark, min(shared), parts)


def described(lost: Iterable[RankLost]) -> str:
    """Who died of what.

    >>> described([RankLost("worker", 1, "its process was killed by SIGKILL")])
    'rank 1 was killed by SIGKILL'
    """
    causes: dict[str, list[int]] = {}
    for loss in lost:
        first = loss.cause.splitlines()[0] if loss.cause else "its process ended"
        causes.setdefault(first.partition("; its last words")[0], []).append(loss.rank)
    return ", ".join(_described(cause, ranks) for cause, ranks in causes.items())


def _described(cause: str, ranks: list[int]) -> str:
    own = cause.removeprefix("its process ")
    if own == cause:
        return f"{spell(ranks)}: {cause}"
    return f"{spell(ranks)} {own if len(ranks) == 1 else own.replace('was ', 'were ', 1)}"


def _goes_on(recovery: Recovery | None, size: int) -> str:
    where = "begins anew" if recovery is None else f"goes on from {recovery.mark}"
    return f"training {where} on {size} rank{'s' if size > 1 else ''}"
