"""Which server holds which part of the model: views, as values; no I/O, no threads.

Every table is cut into as many partitions as there were servers at the start. A partition lies on a chain of servers:
the first, its primary, answers workers, and each passes on what it has done to the next (van Renesse and Schneider,
"Chain replication for supporting high throughput and availability", OSDI 2004). Only the coordinator makes views.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from paibook.errors import RunError


class PartitionLost(RunError):
    """No server that lives holds a copy of some partition."""


class Address(NamedTuple):
    """Where a server listens; ``incarnation`` counts the processes that had its rank."""

    host: str
    port: int
    incarnation: int = 0


@dataclass(frozen=True)
class View:
    """Who holds what.

    Attributes:
        number: Counts the views of a run, from 1.
        replicas: Copies wanted beside the primary.
        primaries: For each partition, the server that answers for it.
        backups: For each partition, the servers that have all that was acknowledged, in the order of the chain.
        building: For each partition, the server that is being given a copy; None where there is none.
        addresses: The servers that live, by rank.
    """

    number: int
    replicas: int
    primaries: tuple[int, ...]
    backups: tuple[tuple[int, ...], ...]
    building: tuple[int | None, ...]
    addresses: Mapping[int, Address]

    def chain(self, partition: int) -> tuple[int, ...]:
        """The servers of a partition, primary first, and the one that is being given a copy last."""
        last = self.building[partition]
        return (self.primaries[partition], *self.backups[partition], *(() if last is None else (last,)))

    def successor(self, partition: int, server: int) -> int | None:
        """To whom a server passes on what it does to a partition; None at the chain's end.

        >>> view = first_view({0: Address("a", 1), 1: Address("b", 1), 2: Address("c", 1)}, 2)
        >>> [view.successor(1, server) for server in (0, 1, 2)]
        [None, 2, 0]
        """
        chain = self.chain(partition)
        place = chain.index(server) + 1 if server in chain else len(chain)
        return chain[place] if place < len(chain) else None

    def to_wire(self) -> dict[str, Any]:
        """As a JSON-able value."""
        addresses = [[rank, *address] for rank, address in self.addresses.items()]
        return {**self.__dict__, "addresses": addresses}

    @classmethod
    def from_wire(cls, values: Mapping[str, Any]) -> View:
        """Read back what ``to_wire`` made."""
        return cls(
            values["number"],
            values["replicas"],
            tuple(values["primaries"]),
            tuple(tuple(chain) for chain in values["backups"]),
            tuple(values["building"]),
            {rank: Address(*address) for rank, *address in values["addresses"]},
        )


def first_view(addresses: Mapping[int, Address], replicas: int) -> View:
    """Partition i begins on server i, with its backups on the servers after it.

    >>> first_view({0: Address("a", 1), 1: Address("b", 1)}, 1).backups
    ((1,), (0,))
    """
    size = len(addresses)
    kept = min(replicas, size - 1)
    backups = tuple(tuple((p + i) % size for i in range(1, kept + 1)) for p in range(size))
    return View(1, kept, tuple(range(size)), backups, (None,) * size, dict(addresses))


def after_loss(view: View, lost: int) -> View:
    """The view without a server: the first of each chain that is left is its primary.

    Raises:
        PartitionLost: It held the last copy of a partition.

    >>> view = first_view({0: Address("a", 1), 1: Address("b", 1)}, 1)
    >>> after_loss(view, 0).primaries
    (1, 1)
    """
    primaries, backups, building = [], [], []
    for partition, (primary, copies) in enumerate(zip(view.primaries, view.backups, strict=True)):
        left = [server for server in (primary, *copies) if server != lost]
        if not left:
            raise PartitionLost(f"server {lost} held the last copy of partition {partition}")
        primaries.append(left[0])
        backups.append(tuple(left[1:]))
        last = view.building[partition]
        building.append(None if last == lost else last)
    addresses = {rank: address for rank, address in view.addresses.items() if rank != lost}
    fewer = View(view.number + 1, view.replicas, tuple(primaries), tuple(backups), tuple(building), addresses)
    return _recruit(fewer)


def with_joined(view: View, server: int, address: Address) -> View:
    """The view with a server that holds nothing yet: it is given the copies that are missing.

    >>> view = after_loss(first_view({0: Address("a", 1), 1: Address("b", 1)}, 1), 0)
    >>> with_joined(view, 0, Address("c", 1, 1)).building
    (0, 0)
    """
    addresses = {**view.addresses, server: address}
    return _recruit(replace(view, number=view.number + 1, addresses=addresses))


def with_copy(view: View, partition: int, server: int) -> View:
    """The view once a server has all of a partition; the same view when that was not expected.

    >>> view = after_loss(first_view({0: Address("a", 1), 1: Address("b", 1)}, 1), 0)
    >>> view = with_joined(view, 0, Address("c", 1, 1))
    >>> with_copy(view, 1, 0).backups
    ((), (0,))
    """
    if view.building[partition] != server:
        return view
    copies = (*view.backups[partition], server)
    if len(copies) > view.replicas:  # one more than wanted: the copy was made to take work from somebody
        held = _held(view)
        spare = max(view.backups[partition], key=lambda other: held[other])
        copies = tuple(other for other in copies if other != spare)
    backups = _changed(view.backups, partition, copies)
    building = _changed(view.building, partition, None)
    return _recruit(replace(view, number=view.number + 1, backups=backups, building=building))


class Move(NamedTuple):
    """A partition, and the one of its backups that is to be its primary."""

    partition: int
    server: int


def next_move(view: View) -> Move | None:
    """What is to be moved where a primary answers for two partitions more than one of its backups; one at a time.

    >>> view = after_loss(first_view({0: Address("a", 1), 1: Address("b", 1)}, 1), 0)
    >>> view = with_joined(view, 0, Address("c", 1, 1))
    >>> next_move(with_copy(with_copy(view, 0, 0), 1, 0))
    Move(partition=0, server=0)
    """
    if any(server is not None for server in view.building):
        return None
    led = _led(view)
    for partition, (primary, copies) in enumerate(zip(view.primaries, view.backups, strict=True)):
        least = min(copies, key=lambda server: led[server], default=primary)
        if led[primary] > led[least] + 1:
            return Move(partition, least)
    return None


def with_moved(view: View, move: Move) -> View:
    """The view in which a backup is the primary, and the primary the last backup: it has all that was acknowledged."""
    others = (server for server in view.backups[move.partition] if server != move.server)
    backups = _changed(view.backups, move.partition, (*others, view.primaries[move.partition]))
    primaries = _changed(view.primaries, move.partition, move.server)
    return _recruit(replace(view, number=view.number + 1, primaries=primaries, backups=backups))


def _recruit(view: View) -> View:
    """Choose who is to be given the copies that are missing: the server that holds the fewest, one at a time.

    Where none is missing and no primary is to be moved, a server that holds two fewer than another is given a copy
    instead of it, and then one that is the primary of two fewer, so that it can take its place.
    """
    for partition in range(len(view.primaries)):
        chain, held = view.chain(partition), _held(view)
        free = [server for server in view.addresses if server not in chain]
        if view.building[partition] is None and len(chain) <= view.replicas and free:
            chosen = min(free, key=lambda server: (held[server], server))
            view = replace(view, building=_changed(view.building, partition, chosen))
    if any(server is not None for server in view.building) or next_move(view) is not None:
        return view
    held = _held(view)
    idle = min(held, key=lambda server: (held[server], server))
    for partition, copies in enumerate(view.backups):
        if idle not in view.chain(partition) and any(held[server] > held[idle] + 1 for server in copies):
            return replace(view, building=_changed(view.building, partition, idle))
    led = _led(view)
    idle = min(led, key=lambda server: (led[server], server))
    for partition, primary in enumerate(view.primaries):
        if view.backups[partition] and led[primary] > led[idle] + 1:  # it is none of the backups, else it would move
            return replace(view, building=_changed(view.building, partition, idle))
    return view


def _led(view: View) -> dict[int, int]:
    """Of how many partitions each server is the primary."""
    return {server: view.primaries.count(server) for server in view.addresses}


def _held(view: View) -> dict[int, int]:
    """How many partitions each server holds."""
    held = dict.fromkeys(view.addresses, 0)
    for partition in range(len(view.primaries)):
        for server in view.chain(partition):
            held[server] += 1
    return held


def _changed(values: tuple[Any, ...], place: int, value: Any) -> tuple[Any, ...]:
    return (*values[:place], value, *values[place + 1 :])
