"""Where new ranks go, as a pure decision."""

from __future__ import annotations

from collections.abc import Mapping

from paibook.errors import ClusterError


def place(free: Mapping[str, int], count: int, where: str, asked: int | None = None, held: int = 0) -> list[str]:
    """Choose a worker for each of ``count`` new ranks: spread, the emptiest worker first.

    Args:
        free: Free slots by worker address.
        count: Ranks to place.
        where: The cluster's name for the error message.
        asked: Size of the whole group, for the message; ``count`` by default.
        held: Ranks of this session that are already placed and stay.

    Returns:
        ``count`` addresses; a worker appears at most as often as it has free slots.

    Raises:
        ClusterError: Not enough slots: says what is free and what was asked.

    >>> place({"a": 1, "b": 2}, 3, "here")
    ['b', 'a', 'b']
    """
    left = dict(free)
    total = sum(left.values())
    if count > total:
        raise ClusterError(
            f"not enough room for ranks on {where}: {count if asked is None else asked} asked for, "
            f"{held} of this session running, {total} free "
            f"on {len(left)} workers; ask for fewer with -n, or add workers"
        )
    chosen = []
    for _ in range(count):
        address = max(left, key=lambda a: (left[a], -list(left).index(a)))
        left[address] -= 1
        chosen.append(address)
    return chosen
