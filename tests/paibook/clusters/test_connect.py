"""What a reference names, and what is said of those that name nothing. Nothing is started here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster

from paibook.clusters import connect
from paibook.clusters.dask_cluster import DaskCluster, EmbeddedCluster
from paibook.clusters.inline import InlineCluster
from paibook.clusters.ipyparallel_cluster import IpyparallelCluster
from paibook.errors import ClusterError

DASK_FILE = {"type": "Scheduler", "id": "Scheduler-1", "address": "tcp://10.0.0.1:8786", "workers": {}}
IPYPARALLEL_FILE = {"ssh": "", "interface": "tcp://127.0.0.1", "registration": 43021, "key": "secret"}


@pytest.fixture
def in_this_process() -> Iterator[LocalCluster]:
    """A Dask cluster without workers or processes."""
    nowhere = {"dashboard_address": "127.0.0.1:0"}
    with LocalCluster(
        n_workers=0, processes=False, protocol="inproc://", dashboard_address=None, scheduler_kwargs=nowhere
    ) as cluster:
        yield cluster


@pytest.mark.parametrize(
    ("reference", "kind"),
    [
        ("inline", InlineCluster),
        ("embedded", EmbeddedCluster),
        ("tcp://10.0.0.1:8786", DaskCluster),
        ("tls://host:8786", DaskCluster),
        ("ipyparallel", IpyparallelCluster),
        ("ipyparallel:mpi", IpyparallelCluster),
    ],
)
def test_a_reference_names_a_kind_of_cluster(reference: str, kind: type) -> None:
    cluster = connect(reference)
    assert type(cluster) is kind
    assert cluster.reference == reference
    assert connect(cluster) is cluster


def test_the_default_is_the_embedded_cluster() -> None:
    assert isinstance(connect(), EmbeddedCluster)


@pytest.mark.parametrize(("content", "kind"), [(DASK_FILE, DaskCluster), (IPYPARALLEL_FILE, IpyparallelCluster)])
def test_a_file_is_known_by_its_content(tmp_path: Path, content: dict[str, Any], kind: type) -> None:
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps(content))
    assert type(connect(str(path))) is kind
    assert connect(str(path)).reference == str(path)


@pytest.mark.parametrize(("content", "kind"), [(DASK_FILE, DaskCluster), (IPYPARALLEL_FILE, IpyparallelCluster)])
def test_a_file_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: dict[str, Any], kind: type
) -> None:
    (tmp_path / "cluster.json").write_text(json.dumps(content))
    monkeypatch.setenv("HOME", str(tmp_path))
    cluster = connect("~/cluster.json")
    assert type(cluster) is kind
    assert cluster.reference == str(tmp_path / "cluster.json")


@pytest.mark.parametrize("reference", ["", "dask", "host:8786", "http://host:8786", "Inline", "/no/such/file"])
def test_a_reference_that_names_nothing_is_shown_what_does(reference: str) -> None:
    with pytest.raises(ClusterError) as caught:
        connect(reference)
    assert f"no cluster is called {reference!r}" in str(caught.value)
    for kind in ("embedded", "inline", "tcp://HOST:PORT", "ipyparallel:PROFILE", ".json"):
        assert kind in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"cannot read the cluster file '.*none\.json': No such file"):
        connect(str(tmp_path / "none.json"))


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe\x00"])
def test_a_file_that_is_no_json_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cluster.json"
    path.write_bytes(content)
    with pytest.raises(ClusterError, match=r"cluster\.json' is not JSON"):
        connect(str(path))


@pytest.mark.parametrize("content", [{}, {"engines": 3}, [], ["address"], 5, None, "address"])
def test_a_file_of_another_kind_is_named(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ClusterError, match=r"cluster\.json' is neither a Dask scheduler file nor an ipyparallel"):
        connect(str(path))


class TestObjects:
    def test_clusters_clients_and_functions_that_make_them(self, in_this_process: LocalCluster) -> None:
        with Client(in_this_process, set_as_default=False) as client:
            for thing in (in_this_process, client, lambda: in_this_process, lambda: client):
                assert connect(thing).reference == in_this_process.scheduler_address

    def test_closing_leaves_what_was_given_open(self, in_this_process: LocalCluster) -> None:
        with Client(in_this_process, set_as_default=False) as client:
            cluster = connect(client)
            cluster.start()
            cluster.close()
            cluster.close()
            assert client.status == "running"

    @pytest.mark.parametrize("thing", [5, None, [], object(), int, lambda: 7, lambda: None])
    def test_anything_else_is_refused(self, thing: Any) -> None:
        with pytest.raises(ClusterError, match="is not a cluster; give a Dask cluster or client object"):
            DaskCluster.of_object(thing)

    def test_a_function_that_makes_functions_is_not_followed_for_ever(self) -> None:
        def make() -> Any:
            return make

        with pytest.raises(ClusterError, match="a function is not a cluster"):
            connect(make)

    def test_a_function_that_fails_says_so_itself(self) -> None:
        with pytest.raises(ZeroDivisionError):
            connect(lambda: 1 / 0)

    def test_a_client_that_is_closed_is_refused(self, in_this_process: LocalCluster) -> None:
        client = Client(in_this_process, set_as_default=False)
        client.close()
        with pytest.raises(ClusterError, match="the Dask client is closed"):
            connect(client)
