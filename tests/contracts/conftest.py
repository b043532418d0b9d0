"""Every kind of cluster, started for real: one at a time, since they share two cores."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from paibook.clusters import connect
from paibook.clusters.contract import Cluster

KINDS = ("inline", "embedded", "dask-address", "dask-object", "ipyparallel")
PROCESS_KINDS = KINDS[1:]


@pytest.fixture(scope="module", params=KINDS)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A started cluster of each kind."""
    kind: str = request.param
    made = request.getfixturevalue("started_" + kind.replace("-", "_"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def started_inline() -> Cluster:
    return connect("inline")


@pytest.fixture(scope="module")
def started_embedded() -> Cluster:
    cluster = connect("embedded")
    cluster.start()
    return cluster


@pytest.fixture(scope="module")
def dask_workers() -> Iterator[object]:
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None, host="127.0.0.1") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def started_dask_address(dask_workers: object) -> Cluster:
    cluster = connect(dask_workers.scheduler_address)  # type: ignore[attr-defined]
    cluster.start()
    return cluster


@pytest.fixture(scope="module")
def started_dask_object(dask_workers: object) -> Cluster:
    cluster = connect(lambda: dask_workers)
    cluster.start()
    return cluster


@pytest.fixture(scope="module")
def started_ipyparallel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    import ipyparallel

    folder = tmp_path_factory.mktemp("profile")
    with ipyparallel.Cluster(n=3, profile_dir=str(folder), controller_ip="127.0.0.1") as client:
        client.wait_for_engines(3, timeout=60, interactive=False)
        (connection_file,) = (folder / "security").glob("*-client.json")
        cluster = connect(str(connection_file))
        cluster.start()
        yield cluster
        cluster.close()
