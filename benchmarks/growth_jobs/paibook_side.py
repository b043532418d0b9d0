"""paibook: cells run through a session as the notebook runs them: ``paibook_side RANKS FILE``."""

from __future__ import annotations

import sys
import time
from statistics import median

from benchmarks.growth_jobs import operations
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook.session import Session

COLLECTIVES = """
from benchmarks.growth_jobs import operations

found = operations.collectives(rank, world_size, comm.Barrier, lambda array: comm.Allreduce(comm.IN_PLACE, array))
"""


def main() -> None:
    """Start the embedded cluster, then the ranks, and run the cells."""
    ranks = int(sys.argv[1])
    session = Session()
    session.cluster.start()

    def run(source: str, *pull: str) -> dict[str, dict[str, float]]:
        resources = Resources(workers=ranks)
        plan = Plan("allreduce", Program(source, "cell"), resources, session.cluster.reference, pull=pull)
        pulled: dict[str, dict[str, float]] = session.run(plan).result().pulled
        return pulled

    def seconds() -> float:
        began = time.perf_counter()
        run("pass")
        return time.perf_counter() - began

    found = {operations.READY: seconds(), operations.NO_OP: median(seconds() for _ in range(operations.NO_OPS))}
    operations.write(found | run(COLLECTIVES, "found@0")["found"])
    session.close()


if __name__ == "__main__":
    main()
