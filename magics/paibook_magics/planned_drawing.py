"""A plan drawn as its run will be: splits, map tasks and partitions; workers, servers and what each of them holds."""

from __future__ import annotations

from collections.abc import Callable

from paibook.plan import Plan
from paibook.runtimes.mapreduce.planned_picture import planned_picture as planned_mapreduce
from paibook.runtimes.ps.consistency import Consistency
from paibook.runtimes.ps.picture import planned_picture as planned_ps
from paibook.settings import settings
from paibook_magics.pictures import drawn

AS_MANY = "as many workers as the cluster has; {} are drawn"


def planned_drawing(plan: Plan) -> str:
    """The picture as HTML; empty for plans of which there is none, such as queries."""
    draw = PLANNED.get(plan.runtime)
    return draw(plan) if draw is not None and not plan.options.get("sql") else ""


def _mapreduce(plan: Plan) -> str:
    slots = plan.resources.workers or settings().workers
    picture, note = planned_mapreduce(plan, slots)
    notes = [note] if plan.resources.workers else [note, AS_MANY.format(slots)]
    return drawn(picture, "; ".join(filter(None, notes)))["text/html"]


def _ps(plan: Plan) -> str:
    workers, servers = plan.resources.workers or settings().workers, max(1, plan.resources.servers)
    asked = plan.options.get("replicas")
    replicas = min(1, servers - 1) if asked is None else asked
    consistency = Consistency.parse(plan.options.get("consistency", "bsp"), plan.options.get("staleness", 0))
    bound = None if consistency.kind == "asp" else consistency.staleness
    note = "" if plan.resources.workers else AS_MANY.format(workers)
    return drawn(planned_ps(workers, servers, replicas, bound), note)["text/html"]


PLANNED: dict[str, Callable[[Plan], str]] = {"mapreduce": _mapreduce, "ps": _ps}
