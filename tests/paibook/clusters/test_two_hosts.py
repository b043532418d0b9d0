"""Where ranks are started on a Dask cluster of two real workers with an address each, as on two hosts."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
from distributed import LocalCluster, Nanny, SpecCluster

from paibook.clusters import connect
from paibook.clusters.contract import Cluster, Place
from paibook.errors import ClusterError
from paibook.resources import Placement

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="other systems have one loopback address only"),
]
WAIT = 40


def worker_of(place: Place) -> int:
    return os.getppid()


def where(cluster: Cluster, size: int, placement: Placement) -> list[int]:
    """The worker process behind each rank, as a number in order of appearance."""
    pids = [pending.result(WAIT) for pending in cluster.ranks(size, placement=placement).apply(worker_of)]
    order = list(dict.fromkeys(pids))
    return [order.index(pid) for pid in pids]


@pytest.fixture(scope="module")
def dask() -> Iterator[SpecCluster]:
    """Two workers with three places each, at loopback addresses of their own."""
    with LocalCluster(n_workers=0, dashboard_address=None, host="127.0.0.1", silence_logs=50) as cluster:
        for number in (1, 2):
            options = {"nthreads": 3, "host": f"127.0.0.{number}", "dashboard": False}
            cluster.worker_spec[number] = {"cls": Nanny, "options": options}
        cluster.sync(cluster._correct_state)
        cluster.wait_for_workers(2)
        yield cluster


@pytest.fixture
def cluster(dask: SpecCluster) -> Iterator[Cluster]:
    made = connect(dask.scheduler_address)
    yield made
    made.close()


def test_ranks_are_spread_and_those_of_one_host_are_neighbours(cluster: Cluster) -> None:
    assert where(cluster, 4, "spread") == [0, 0, 1, 1]


def test_ranks_are_packed_and_stay_where_they_are(cluster: Cluster) -> None:
    assert where(cluster, 2, "pack") == [0, 0]
    assert where(cluster, 3, "pack") == [0, 0, 0]
    assert where(cluster, 5, "pack") == [0, 0, 0, 1, 1]
    assert where(cluster, 6, "spread") == [0, 0, 0, 1, 1, 1]
    with pytest.raises(ClusterError, match="7 asked for, 6 of this session running, 0 free on 2 workers"):
        cluster.ranks(7, placement="pack")


def test_roles_are_placed_on_what_is_left(cluster: Cluster) -> None:
    servers = [pending.result(WAIT) for pending in cluster.ranks(1, role="server").apply(worker_of)]
    workers = [pending.result(WAIT) for pending in cluster.ranks(3, placement="pack").apply(worker_of)]
    assert len(set(workers)) == 1
    assert Counter(servers + workers).most_common(1)[0][1] == 3
