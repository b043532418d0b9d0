"""ipyparallel: engines for a controller that runs already: ``ipyparallel_side RANKS FILE``."""

from __future__ import annotations

import sys
import time
from statistics import median
from typing import Any

import ipyparallel

from benchmarks.growth_jobs import operations


def no_op() -> None:
    """What every engine does."""


def main() -> None:
    """Start the controller, then the engines, and call them."""
    ranks = int(sys.argv[1])
    cluster: Any = ipyparallel.Cluster(n=ranks, engine_timeout=300)
    cluster.start_controller_sync()
    client = cluster.connect_client_sync()
    began = time.perf_counter()
    cluster.start_engines_sync(ranks)
    client.wait_for_engines(ranks, interactive=False)
    view = client[:]
    view.apply_sync(no_op)
    found = {operations.READY: time.perf_counter() - began}

    def seconds() -> float:
        began = time.perf_counter()
        view.apply_sync(no_op)
        return time.perf_counter() - began

    found[operations.NO_OP] = median(seconds() for _ in range(operations.NO_OPS))
    operations.write(found)
    client.close()
    cluster.stop_cluster_sync()


if __name__ == "__main__":
    main()
