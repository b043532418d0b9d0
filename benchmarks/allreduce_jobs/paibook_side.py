"""paibook: ``comm`` in a cell, run through a session as the notebook runs it."""

from __future__ import annotations

import os

from benchmarks.allreduce_jobs import timing
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook.session import Session

CELL = """
from benchmarks.allreduce_jobs import timing

found = timing.found(rank, world_size, lambda array: comm.Allreduce(comm.IN_PLACE, array))
"""


def main() -> None:
    """Start the embedded cluster, run the cell, write what rank 0 found."""
    session = Session()
    session.cluster.start()
    resources = Resources(workers=int(os.environ["PAIBOOK_WORKERS"]))
    plan = Plan("allreduce", Program(CELL, "cell"), resources, session.cluster.reference, pull=("found@0",))
    timing.write(session.run(plan).result().pulled["found"])
    session.close()


if __name__ == "__main__":
    main()
