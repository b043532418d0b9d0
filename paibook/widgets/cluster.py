"""The panel of a cluster: its workers and ranks, with state, memory and what they work on."""

from __future__ import annotations

import socket
from typing import Any

import psutil

from paibook.clusters.contract import ClusterStatus, RankStatus, WorkerStatus
from paibook.session import Session
from paibook.widgets.live_panel import STATIC, LivePanel, gib, table_bundle

COLUMNS = ("rank", "state", "host", "process", "memory", "GPUs", "works on")


class ClusterPanel(LivePanel):
    """Workers and ranks of a session's cluster. Looking at a cluster that is stopped does not start it."""

    _esm = STATIC / "cluster.js"

    def __init__(self, session: Session) -> None:
        self._session = session
        super().__init__(every=2000)  # each answer is one call on every worker

    def look(self) -> dict[str, Any]:
        cluster = self._session.cluster
        if not cluster.started():
            return {"title": f"{cluster.reference}: not started; the next cell starts it", "workers": [], "ranks": []}
        status = cluster.status()
        work = ", ".join(run.plan.name or run.id for run in self._session.runs if not run.done())
        return {
            "title": cluster_title(status),
            "workers": [_worker(member) for member in status.members],
            "ranks": [_rank(rank, work) for rank in status.ranks],
        }

    def static(self) -> dict[str, str]:
        rows = [
            (
                f"{rank['role']} {rank['rank']}",
                rank["state"],
                rank["host"],
                str(rank["pid"] or ""),
                gib(rank["memory"]),
                ", ".join(rank["cards"]),
                rank["work"],
            )
            for rank in self.state["ranks"]
        ]
        return table_bundle(self.state["title"], COLUMNS, rows)


def cluster_title(status: ClusterStatus) -> str:
    """A cluster in a line."""
    return (
        f"Cluster {status.reference}: {status.workers} workers, {status.free} of {status.slots} places for ranks free"
    )


def _worker(member: WorkerStatus) -> dict[str, Any]:
    return {
        "address": member.address,
        "memory": member.memory,
        "limit": member.limit,
        "running": member.running,
        "waiting": member.waiting,
    }


def _rank(rank: RankStatus, work: str) -> dict[str, Any]:
    return {
        "role": rank.role,
        "rank": rank.rank,
        "state": rank.state,
        "host": rank.host,
        "pid": rank.pid,
        "memory": _memory(rank),
        "cards": list(rank.cards),
        "work": work if rank.state == "busy" else "",
    }


def _memory(rank: RankStatus) -> int | None:
    """Bytes of main memory a rank's process takes; None where it is on another host or gone."""
    if rank.host != socket.gethostname() or rank.state == "lost":
        return None
    try:
        return int(psutil.Process(rank.pid).memory_info().rss)
    except psutil.Error:
        return None
