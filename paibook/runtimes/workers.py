"""The workers a plan asks for, whatever its programming model."""

from __future__ import annotations

from paibook.clusters.contract import Cluster, Ranks
from paibook.errors import NoGPU
from paibook.resources import Resources


def workers_on(cluster: Cluster, resources: Resources, size: int) -> Ranks:
    """``size`` workers of a cluster, with the cards and in the places that are asked for; see ``Cluster.ranks``."""
    try:
        return cluster.ranks(
            size,
            gpus=resources.gpus_per_worker,
            placement=resources.placement,
            cards=resources.card_choice,
        )
    except NoGPU:
        if not resources.cpu_fallback:
            raise
    return cluster.ranks(size, placement=resources.placement)


def fallback_note(ranks: Ranks, resources: Resources) -> str:
    """What to say where ranks were to have cards and run without; empty where they have what was asked for."""
    if not (resources.gpus_per_worker and resources.cpu_fallback) or any(status.cards for status in ranks.status()):
        return ""
    return "no GPU here: the ranks run on the CPU, as --cpu-fallback allows\n"
