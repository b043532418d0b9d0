"""Where new ranks go, as pure decisions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from paibook.errors import ClusterError
from paibook.resources import Placement


def place(
    free: Mapping[str, int],
    count: int,
    where: str,
    asked: int | None = None,
    held: int = 0,
    placement: Placement = "spread",
    near: Collection[str] = (),
) -> list[str]:
    """Choose a worker for each of ``count`` new ranks.

    Args:
        free: Free slots by worker address.
        count: Ranks to place.
        where: The cluster's name for the error message.
        asked: Size of the whole group, for the message; ``count`` by default.
        held: Ranks of this session that are already placed and stay.
        placement: ``spread``: the emptiest worker first. ``pack``: as few hosts as possible, and on them as few
            workers; of those that would do, the ones with the least room.
        near: Addresses of workers that hold ranks of the group; packed ranks go to their hosts first.

    Returns:
        ``count`` addresses, those of one host together; a worker appears at most as often as it has free slots.

    Raises:
        ClusterError: Not enough slots: says what is free and what was asked.

    >>> place({"a": 1, "b": 2}, 3, "here")
    ['b', 'b', 'a']
    >>> place({"tcp://a:1": 2, "tcp://a:2": 2, "tcp://b:1": 3}, 3, "here", placement="pack")
    ['tcp://b:1', 'tcp://b:1', 'tcp://b:1']
    """
    total = sum(free.values())
    if count > total:
        raise ClusterError(
            f"not enough room for ranks on {where}: {count if asked is None else asked} asked for, "
            f"{held} of this session running, {total} free "
            f"on {len(free)} workers; ask for fewer with -n, or add workers"
        )
    chosen = _packed(free, count, near) if placement == "pack" else _spread(free, count)
    hosts = list(dict.fromkeys(map(host_of, chosen)))
    return sorted(chosen, key=lambda address: hosts.index(host_of(address)))


def host_of(address: str) -> str:
    """The host of a worker's address.

    >>> host_of("tls://10.0.0.5:40123"), host_of("tcp://[::1]:40123")
    ('10.0.0.5', '[::1]')
    """
    return address.partition("://")[2].rpartition(":")[0] or address


def within_cards(free: Mapping[str, int], most: Mapping[str, int]) -> dict[str, int]:
    """Free slots by worker, cut down where a host has fewer cards than slots.

    Args:
        free: Slots by worker address.
        most: Ranks that the cards of a worker's host suffice for, by worker address; workers of one host share them.

    >>> within_cards({"tcp://a:1": 3, "tcp://a:2": 1, "tcp://b:1": 2}, {"tcp://a:1": 2, "tcp://a:2": 2, "tcp://b:1": 9})
    {'tcp://a:1': 1, 'tcp://a:2': 1, 'tcp://b:1': 2}
    """
    cut: dict[str, int] = {}
    for host in dict.fromkeys(map(host_of, free)):
        here = {address: slots for address, slots in free.items() if host_of(address) == host}
        cards = max(most.get(address, 0) for address in here)
        # In turn, so that the order of workers decides where slots are equal.
        turns = [address for turn in range(max(here.values())) for address in here if here[address] > turn]
        cut.update({address: turns[:cards].count(address) for address in here})
    return cut


def _spread(free: Mapping[str, int], count: int) -> list[str]:
    left = dict(free)
    order = {address: -number for number, address in enumerate(left)}
    chosen = []
    for _ in range(count):
        address = max(left, key=lambda a: (left[a], order[a]))
        left[address] -= 1
        chosen.append(address)
    return chosen


def _packed(free: Mapping[str, int], count: int, near: Collection[str]) -> list[str]:
    room: dict[str, int] = {}
    for address, slots in free.items():
        room[host_of(address)] = room.get(host_of(address), 0) + slots
    chosen: list[str] = []
    for host, share in _fewest(room, count, set(map(host_of, near))):
        here = {address: slots for address, slots in free.items() if host_of(address) == host}
        chosen += [address for address, part in _fewest(here, share, near) for _ in range(part)]
    return chosen


def _fewest(room: Mapping[str, int], count: int, first: Iterable[str]) -> list[tuple[str, int]]:
    """Fill as few bins as possible: those named first, then the smallest that takes the rest, else the largest."""
    left = {name: slots for name, slots in room.items() if slots}
    preferred = set(first)
    chosen = []
    while count:
        candidates = [name for name in left if name in preferred] or list(left)
        enough = [name for name in candidates if left[name] >= count]
        name = min(enough, key=left.__getitem__) if enough else max(candidates, key=left.__getitem__)
        part = min(count, left.pop(name))
        chosen.append((name, part))
        count -= part
    return chosen
