"""A run as it stands, for whoever draws it: workers and their clocks, servers and what they hold and do. JSON-able."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from paibook.runtimes.ps.views import Address, first_view

Told = Mapping[str, Any]


def picture(status: Told, servers: Mapping[int, Told], before: Mapping[int, Told], seconds: float) -> dict[str, Any]:
    """Put together what the coordinator and the servers say.

    Args:
        status: The coordinator's.
        servers: By rank, what each says of itself; those that did not answer are left out.
        before: What they said some time ago.
        seconds: How long ago that was.

    Returns:
        ``clock``; ``workers``: rank, clock, state (``training``, ``waiting``, ``ended``); ``servers``: rank, the
        partitions it answers for and those it has copies of, rows, bytes, and pulls, pushes and bytes a second;
        ``traffic``: worker, server, bytes a second; ``tables``: name, rows, bytes of weights; ``staleness``: table to
        clocks to pulls; ``hot``: table, key, share of its server's keys; ``seconds``, as given.
    """
    return {
        "model": "ps",
        "clock": status["clock"],
        "seconds": seconds,
        "consistency": status["consistency"],
        "staleness_bound": status["staleness_bound"],
        "workers": _workers(status, servers),
        "servers": [_server(rank, status, servers[rank], before.get(rank), seconds) for rank in sorted(servers)],
        "traffic": _traffic(servers, before, seconds),
        "tables": _tables(servers),
        "pulls": sum(told["pulls"] for told in servers.values()),
        "pushes": sum(told["pushes"] for told in servers.values()),
        "staleness": _staleness(servers),
        "hot": sorted((hot for told in servers.values() for hot in told["hot"]), key=lambda hot: -hot[2])[:5],
    }


def planned_picture(workers: int, servers: int, replicas: int, staleness_bound: int | None) -> dict[str, Any]:
    """The same before anything runs: everybody at clock 0, and on which servers each partition and its copies lie.

    Args:
        workers, servers: How many there would be.
        replicas: Copies of a partition beside its primary.
        staleness_bound: Clocks that a pull may miss; None for any.
    """
    view = first_view({rank: Address("", 0) for rank in range(servers)}, replicas)
    status = {
        "clock": 0,
        "clocks": [0] * workers,
        "consistency": "",
        "staleness_bound": staleness_bound,
        "retired": [],
        "waiting": [],
        "view": view.to_wire(),
    }
    nothing: dict[str, Any] = {
        "pulls": 0,
        "pushes": 0,
        "bytes": {},
        "shards": [],
        "waiting": [],
        "staleness": {},
        "hot": [],
        "process_bytes": 0,
    }
    return {**picture(status, dict.fromkeys(range(servers), nothing), {}, 1.0), "planned": True}


def _workers(status: Told, servers: Mapping[int, Told]) -> list[dict[str, Any]]:
    ended = set(status["retired"])
    waiting = {rank for told in (status, *servers.values()) for rank in told["waiting"]}
    return [
        {
            "rank": rank,
            "clock": clock,
            "state": "ended" if rank in ended else "waiting" if rank in waiting else "training",
        }
        for rank, clock in enumerate(status["clocks"])
    ]


def _server(rank: int, status: Told, now: Told, before: Told | None, seconds: float) -> dict[str, Any]:
    view = status["view"] or {"primaries": [], "backups": []}
    shards = now["shards"]
    was = before or {"pulls": 0, "pushes": 0, "bytes": {}}
    return {
        "rank": rank,
        "primary": [p for p, server in enumerate(view["primaries"]) if server == rank],
        "copies": [p for p, chain in enumerate(view["backups"]) if rank in chain],
        "rows": sum(shard["rows_in_memory"] for shard in shards),
        "rows_on_disk": sum(shard["rows_on_disk"] for shard in shards),
        "bytes": sum(shard["bytes_in_memory"] for shard in shards),
        "bytes_on_disk": sum(shard["bytes_on_disk"] for shard in shards),
        "process_bytes": now["process_bytes"],
        "pulls_per_second": (now["pulls"] - was["pulls"]) / seconds,
        "pushes_per_second": (now["pushes"] - was["pushes"]) / seconds,
        "bytes_per_second": (_total(now["bytes"]) - _total(was["bytes"])) / seconds,
    }


def _traffic(servers: Mapping[int, Told], before: Mapping[int, Told], seconds: float) -> list[list[float]]:
    found = []
    for server, now in servers.items():
        was = before.get(server, {"bytes": {}})["bytes"]
        for rank, both in now["bytes"].items():
            found.append([int(rank), server, (sum(both) - sum(was.get(rank, (0, 0)))) / seconds])
    return sorted(found)


def _tables(servers: Mapping[int, Told]) -> list[dict[str, Any]]:
    rows: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for told in servers.values():
        for shard in told["shards"]:
            if shard["primary"]:
                rows[shard["table"]] += shard["rows"]
                size[shard["table"]] += shard["bytes"]
    return [{"name": name, "rows": rows[name], "bytes": size[name]} for name in sorted(rows)]


def _staleness(servers: Mapping[int, Told]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[int]] = {}
    for told in servers.values():
        for table, seen in told["staleness"].items():
            found.setdefault(table, Counter()).update({int(s): n for s, n in seen.items()})
    return {table: {str(s): seen[s] for s in sorted(seen)} for table, seen in sorted(found.items())}


def _total(by_rank: Mapping[str, list[int]]) -> int:
    return sum(map(sum, by_rank.values()))
