"""paibook: the same steps in cells, run through a session as the notebook runs them."""

from __future__ import annotations

from benchmarks.training_jobs import steps
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook.session import Session

LOGISTIC = """
from benchmarks.training_jobs import steps

found = steps.logistic(rank, world_size, lambda array: comm.Allreduce(comm.IN_PLACE, array))
"""
LENET = """
import torch.distributed as dist
from benchmarks.training_jobs import steps

dist.init_process_group("gloo")
found = steps.lenet()
dist.destroy_process_group()
"""


def main() -> None:
    """Start the embedded cluster, run both cells, write what rank 0 found."""
    session = Session()
    session.cluster.start()

    def run(source: str) -> tuple[float, float]:
        plan = Plan(
            "allreduce",
            Program(source, "cell"),
            Resources(workers=2),
            session.cluster.reference,
            pull=("found@0",),
        )
        found: tuple[float, float] = session.run(plan).result().pulled["found"]
        return found

    steps.write({"logistic": run(LOGISTIC), "lenet": run(LENET)})
    session.close()


if __name__ == "__main__":
    main()
