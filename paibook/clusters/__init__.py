"""Clusters: where processes run. ``connect(reference)`` gives one; ``contract`` says what it can do."""

from __future__ import annotations

from typing import Any

from paibook.clusters.contract import Cluster
from paibook.errors import ClusterError


def connect(reference: Any = "embedded") -> Cluster:
    """Make the cluster a reference names, not yet started.

    Args:
        reference: ``"embedded"``; ``"inline"``; ``"tcp://host:port"`` or ``"tls://host:port"`` of a Dask scheduler, or
            the path of its scheduler file; ``"ipyparallel"``, ``"ipyparallel:PROFILE"`` or the path of a connection
            file of an ipyparallel cluster; a Dask cluster or client object, or a function that returns one; a
            ``Cluster``, which is returned as it is.

    Raises:
        ClusterError: The reference names no kind of cluster.
    """
    if isinstance(reference, Cluster):
        return reference
    if not isinstance(reference, str):
        from paibook.clusters.dask_cluster import DaskCluster

        return DaskCluster.of_object(reference)
    if reference == "inline":
        from paibook.clusters.inline import InlineCluster

        return InlineCluster()
    if reference == "embedded":
        from paibook.clusters.dask_cluster import EmbeddedCluster

        return EmbeddedCluster()
    if reference.partition("://")[0] in ("tcp", "tls", "ws", "wss", "ucx"):
        from paibook.clusters.dask_cluster import DaskCluster

        return DaskCluster(reference)
    if reference.partition(":")[0] == "ipyparallel":
        from paibook.clusters.ipyparallel_cluster import IpyparallelCluster

        return IpyparallelCluster(reference)
    if reference.endswith(".json"):
        return _from_file(reference)
    raise ClusterError(
        f"no cluster is called {reference!r}; give embedded, inline, tcp://HOST:PORT, a Dask scheduler file, "
        "ipyparallel:PROFILE or an ipyparallel connection file (.json)"
    )


def _from_file(text: str) -> Cluster:
    import json
    from pathlib import Path

    path = str(Path(text).expanduser())
    try:
        content = json.loads(Path(path).read_text())
    except OSError as error:
        raise ClusterError(f"cannot read the cluster file {path!r}: {error.strerror}") from error
    except ValueError as error:  # neither JSON nor even text
        raise ClusterError(f"the cluster file {path!r} is not JSON: {error}") from error
    if not isinstance(content, dict):
        content = {}
    if "address" in content:
        from paibook.clusters.dask_cluster import DaskCluster

        return DaskCluster(path)
    if "registration" in content:
        from paibook.clusters.ipyparallel_cluster import IpyparallelCluster

        return IpyparallelCluster(path)
    raise ClusterError(f"{path!r} is neither a Dask scheduler file nor an ipyparallel client connection file")
