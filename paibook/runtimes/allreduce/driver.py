"""The all-reduce driver: runs a cell on every rank, and ends it everywhere when it fails anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import PickleBuffer
from typing import Any

import cloudpickle

from paibook.clusters.contract import Cluster, Event
from paibook.comms.backends import AUTO, NAMES
from paibook.errors import PlanError
from paibook.plan import Plan
from paibook.runtimes import pulls
from paibook.runtimes.allreduce.cell import AllReduceResult, Cell, Values
from paibook.runtimes.allreduce.elastic import Attempts
from paibook.runtimes.allreduce.growth import first_ranks
from paibook.runtimes.allreduce.verdict import spell
from paibook.runtimes.contract import RunContext
from paibook.runtimes.turns import turn
from paibook.runtimes.workers import fallback_note


class Driver:
    """Runs ``%%pai_allreduce`` cells."""

    def check(self, plan: Plan) -> None:
        """Refuse a plan that cannot work.

        Raises:
            PlanError, SyntaxError: Naming what is wrong.
        """
        plan.program.tree()
        pulls.parse(plan.pull)
        backend = plan.options.get("backend", AUTO)
        if backend not in NAMES:
            raise PlanError(f"--backend must be one of {', '.join(NAMES)}; got {backend!r}")
        if plan.resources.servers:
            raise PlanError(f"%%pai_allreduce has no servers; got --servers {plan.resources.servers}")
        workers, fewest = plan.resources.workers, plan.options.get("min_workers")
        if workers:
            _chosen(plan, workers)
        if workers and fewest is not None and fewest > workers:
            raise PlanError(f"--min-workers {fewest} is above -n {workers}: it says how few ranks may go on")

    def check_resume(self, plan: Plan, directory: Path) -> None:
        """Refuse: ranks end with their notebook, and so do the snapshots that they keep.

        Raises:
            PlanError: Always.
        """
        raise PlanError("%%pai_allreduce keeps its snapshots in its ranks, which end with their notebook")

    def run(self, plan: Plan, cluster: Cluster, context: RunContext) -> AllReduceResult:
        """Run the cell on the ranks and wait for all of them.

        Raises:
            UserCodeError: The first failure, with the other ranks' errors merged into its traceback.
            RankLost, RunCancelled, RunError: As named.
            PlanError: A target, a pushed or a pulled variable that does not fit.
        """
        self.check(plan)
        with turn(cluster, context):
            ranks = first_ranks(plan, cluster)
            if ranks.size < plan.resources.workers:
                text = f"there is room for {ranks.size} of {plan.resources.workers} ranks; the cell begins on those\n"
                context.emit(Event("stderr", "run", -1, text))
            if note := fallback_note(ranks, plan.resources):
                context.emit(Event("stderr", "run", -1, note))
            for loss in ranks.take_losses():
                text = f"rank {loss.rank} starts with no variables: {loss}\n"
                context.emit(Event("stderr", ranks.role, loss.rank, text))
            reports = Attempts(plan, cluster, _cell(plan, context, _chosen(plan, ranks.size)), context).run(ranks)
        pulled, differs = pulls.unpack(
            pulls.parse(plan.pull), {rank: report.parcel for rank, report in reports.items()}
        )
        values = Values({rank: report.value for rank, report in sorted(reports.items())})
        return AllReduceResult(values, pulled, differs)


def _cell(plan: Plan, context: RunContext, chosen: tuple[int, ...]) -> Cell:
    variables, check = _pickled(context.variables), bool(plan.options.get("check", True))
    return Cell(plan.program, variables, dict(plan.hyperparameters), pulls.parse(plan.pull), chosen, check=check)


def _chosen(plan: Plan, size: int) -> tuple[int, ...]:
    if plan.targets is None:
        targets = tuple(range(size))
    else:
        targets = tuple(sorted(set(plan.targets)))
        outside = [rank for rank in targets if not 0 <= rank < size]
        if outside or not targets:
            got = ", ".join(map(str, outside)) or "none"
            raise PlanError(f"--targets must be ranks from 0 to {size - 1}; got {got}")
    for name, rank in pulls.parse(plan.pull):
        if rank is not None and rank not in targets:
            raise PlanError(f"--pull {name}@{rank}: the cell runs on {spell(targets)} only")
    return targets


def _pickled(variables: Mapping[str, Any]) -> dict[str, PickleBuffer]:
    return {name: PickleBuffer(_pickle(name, value)) for name, value in variables.items()}


def _pickle(name: str, value: Any) -> bytes:
    try:
        data: bytes = cloudpickle.dumps(value, protocol=5)
    except Exception as error:  # user objects may fail to pickle in any way at all
        raise PlanError(f"--push {name}: a {type(value).__name__} cannot be sent to the ranks: {error}") from error
    return data
