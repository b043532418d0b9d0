"""The workers a plan asks for, whatever its programming model."""

from __future__ import annotations

from paibook.clusters.contract import Cluster, Ranks
from paibook.resources import Resources


def workers_on(cluster: Cluster, resources: Resources, size: int) -> Ranks:
    """``size`` workers of a cluster, with the cards and in the places that are asked for; see ``Cluster.ranks``."""
    return cluster.ranks(size, gpus=resources.gpus_per_worker, placement=resources.placement)
