"""The plan of a ``%%pai_allreduce`` cell shown: its ranks, what they talk through, and the way of an all-reduce."""

from __future__ import annotations

from paibook.comms.paths import allreduce_paths
from paibook.plan import Plan
from paibook.runtimes.allreduce.planning import planned_backends
from paibook_magics.sizes import short_bytes

MOST = 8  # ranks in the diagram
CASES = ("one host", "several hosts, more than one rank on each", "other hosts")
HUBS = {
    "shared": '[("memory of this host")]',
    "threads": '[("memory of the notebook\'s process")]',
    "gloo": '{{"gloo"}}',
    "nccl": '{{"NCCL"}}',
    "mpi": '{{"MPI"}}',
}


def allreduce_rows(plan: Plan) -> list[tuple[str, str]]:
    """Which way a small and a large all-reduce will take."""
    backends = planned_backends(plan)
    if len(backends) > 1:
        return [
            (f"all-reduce, {case}", "; ".join(_way(*path) for path in allreduce_paths(backend)))
            for case, backend in zip(CASES, backends, strict=True)
        ]
    paths = allreduce_paths(backends[0])
    if len(paths) == 1:
        return [("all-reduce", paths[0][1])]
    return [("small all-reduce", _way(*paths[0])), ("large all-reduce", _way(*paths[-1]))]


def allreduce_diagram(plan: Plan) -> str:
    """Ranks around what they talk through, in Mermaid's language."""
    backends, size = planned_backends(plan), plan.resources.workers or 2
    hub = HUBS[backends[0]] if len(backends) == 1 else '{{"by where the ranks are"}}'
    ranks = range(min(size, MOST))
    lines = [f'  r{rank}(["rank {rank}"])' for rank in ranks]
    if size > MOST:
        lines.append(f'  more(["{size - MOST} more ranks"])')
    if backends[0] in ("shared", "threads") and len(backends) == 1:
        lines = ['  subgraph host["this host"]', f"  hub{hub}", *lines, "  end"]
    else:
        lines = [f"  hub{hub}", *lines]
    ends = [f"r{rank}" for rank in ranks] + ["more"] * (size > MOST)
    return "\n".join(["flowchart LR", *lines, *(f"  {end} <--> hub" for end in ends)])


def _way(limit: int | None, words: str) -> str:
    return words if limit is None else f"up to {short_bytes(limit)}, {words}"
