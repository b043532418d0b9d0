"""A run as it stands, for whoever draws it: ranks, what they call, move and wait for. Pure, JSON-able."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from paibook.comms.calls import POINT_TO_POINT
from paibook.comms.operators import ANY_SOURCE
from paibook.comms.paths import allreduce_paths

WAIT_SECONDS = 0.3  # in an operation that others have not reached; ranks tell where they are about as often

Told = Mapping[str, Any]


def picture(
    how: str,
    hosts: Sequence[Sequence[Any]],
    told: Mapping[int, Told],
    ended: Mapping[int, str],
    seconds: float,
) -> dict[str, Any]:
    """Put together what the ranks say.

    Args:
        how: The backend, or ``threads``.
        hosts: Rows of a host's name and its ranks; together all ranks.
        told: By rank, what it said last (see ``activity.told``); those that have said nothing compute.
        ended: How those that are not in the cell any more have ended: ``ended``, ``failed``, ``stopped``, ``lost``.
        seconds: Since the cell began.

    Returns:
        ``how``; ``hosts``, as given; ``paths``, see ``allreduce_paths``; ``ranks``: rank, state (``computing``,
        ``communicating``, ``waiting``, or how it ended), line, call, seconds in that, number of operations, bytes
        written to and read from shared memory, handed to a library and sent in messages, messages, seconds waited and
        in the library (which do not count the present operation); ``waits``: rank, the one that it waits for;
        ``links``: rank, rank, messages, bytes; ``operations``: name to count and bytes a rank; ``torch``: collectives
        of torch's default group; ``lines``: where each rank is, by ``rank N``; ``seconds``, as given.
    """
    everyone = sorted(rank for _, ranks in hosts for rank in ranks)
    waits = [[rank, other] for rank in everyone for other in _awaited(rank, everyone, told, ended)]
    waiting = {rank for rank, _ in waits} | {rank for rank in told if told[rank]["awaited"] == ANY_SOURCE}
    ranks = [_rank(rank, told.get(rank), ended.get(rank), rank in waiting) for rank in everyone]
    return {
        "model": "allreduce",
        "seconds": seconds,
        "how": how,
        "hosts": [[name, list(ranks)] for name, ranks in hosts],
        "paths": [list(path) for path in allreduce_paths(how)],
        "ranks": ranks,
        "waits": waits,
        "links": [[rank, *row] for rank in sorted(told) for row in told[rank]["sent"]],
        "operations": _operations(told.values()),
        "torch": max((words["torch"] for words in told.values()), default=0),
        "lines": {f"rank {r['rank']}": r["line"] for r in ranks if r["line"] is not None and r["rank"] not in ended},
    }


def _awaited(rank: int, everyone: Sequence[int], told: Mapping[int, Told], ended: Mapping[int, str]) -> list[int]:
    """For whom a rank waits: whoever is to send it a message, or has not reached its collective."""
    words = told.get(rank)
    if words is None or (words["call"] is None and words["awaited"] is None):
        return []
    if ended.get(rank, "stopped") != "stopped" or (rank not in ended and words["seconds"] < WAIT_SECONDS):
        return []
    if words["awaited"] is not None:
        return [] if words["awaited"] == ANY_SOURCE else [words["awaited"]]
    number = words["number"]
    behind = [other for other in everyone if other != rank and (told[other]["count"] if other in told else 0) < number]
    return behind if number else []


def _rank(rank: int, words: Told | None, how_ended: str | None, waiting: bool) -> dict[str, Any]:
    inside = words is not None and words["call"] is not None
    state = how_ended or ("waiting" if waiting else "communicating" if inside else "computing")
    said = words or {}
    sent = said.get("sent", ())
    return {
        "rank": rank,
        "state": state,
        "line": said.get("line"),
        "call": said.get("call"),
        "number": said.get("number", 0),
        "seconds": said.get("seconds", 0.0),
        "operations": sum(count for count, _ in said.get("operations", {}).values()),
        "messages": sum(messages for _, messages, _ in sent),
        "sent": sum(size for _, _, size in sent),
        **{name: said.get(name, 0) for name in ("written", "read", "handed", "library_seconds", "waited")},
    }


def _operations(told: Any) -> dict[str, dict[str, int | None]]:
    """Collectives as the rank that called them most often did, messages of all ranks; the most frequent first."""
    counts: Counter[str] = Counter()
    sizes: dict[str, int | None] = {}
    for words in told:
        for name, (count, size) in words["operations"].items():
            if name in POINT_TO_POINT:
                counts[name] += count
            else:
                counts[name] = max(counts[name], count)
            sizes[name] = size if sizes.get(name) is None else max(sizes[name] or 0, size or 0)
    return {name: {"count": count, "bytes": sizes[name]} for name, count in counts.most_common()}
