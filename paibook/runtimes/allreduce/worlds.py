"""Which world the ranks of a cluster form at present, as the driver knows it."""

from __future__ import annotations

import os
import socket
import threading
import uuid
import weakref
from collections.abc import Sequence
from itertools import count

from paibook.clusters.contract import Cluster, Ranks
from paibook.comms.rendezvous import Meeting, environment
from paibook.comms.torchrun import PRIVATE
from paibook.comms.wire import new_token
from paibook.runtimes.allreduce import worker
from paibook.runtimes.allreduce.cell import Introduction, World
from paibook.settings import settings

INTRODUCTION_SECONDS = 30.0

Identity = tuple[tuple[str, int], ...]


class Worlds:
    """One cluster's current world; used by the run whose turn it is on the ranks."""

    def __init__(self) -> None:
        self._world: World | None = None
        self._identity: Identity = ()
        self._attempts = count(1)
        self._token = new_token()  # one for all worlds: a rank asks for snapshots of the world before

    def current(self, ranks: Ranks) -> World:
        """The world of these ranks: the one before, unless it was broken or a process was replaced."""
        identity = identity_of(ranks)
        if self._world is None or identity != self._identity:
            self._world = None
            self._world = _new_world(ranks, identity, self._token)
            self._identity = identity
        return self._world

    def next_attempt(self) -> int:
        """A number for the next attempt at running a cell, greater than those before."""
        return next(self._attempts)

    def give_up(self) -> None:
        """Say that the ranks are out of step: the next cell gets a new world."""
        self._world = None


_worlds: weakref.WeakKeyDictionary[Cluster, Worlds] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def worlds_of(cluster: Cluster) -> Worlds:
    """The cluster's ``Worlds``."""
    with _lock:
        return _worlds.setdefault(cluster, Worlds())


def identity_of(ranks: Ranks) -> Identity:
    """The processes that the ranks are."""
    return tuple((status.host, status.pid) for status in ranks.status())


def _new_world(ranks: Ranks, identity: Identity, token: bytes) -> World:
    name = PRIVATE + uuid.uuid4().hex
    if set(identity) == {(socket.gethostname(), os.getpid())}:
        return World(name, ranks.size, True, Meeting(b""))
    one_host = len({host for host, _ in identity}) == 1
    members = _introduced(ranks, one_host, token)
    hosts = [member.host for member in members]
    if one_host and len(set(hosts)) > 1:  # containers may share a host's name and nothing else
        members = _introduced(ranks, False, token)
    first = members[0]
    environments = tuple(
        environment(rank, ranks.size, hosts, first.store, member.cores) for rank, member in enumerate(members)
    )
    if len(set(hosts)) == 1:
        # A file in a folder of mode 0700, rather than a port that authenticates nobody.
        meeting = Meeting(new_token(), first.folder)
    else:
        meeting = Meeting(new_token(), None, first.store, tuple(member.host_address for member in members))
    keepers = tuple(member.keeper for member in members)
    shared_memory = (
        meeting.folder is not None and settings().shared_memory and all(member.shared_memory for member in members)
    )
    return World(name, ranks.size, False, meeting, environments, keepers, token, shared_memory)


def _introduced(ranks: Ranks, one_host: bool, token: bytes) -> Sequence[Introduction]:
    return [pending.result(INTRODUCTION_SECONDS) for pending in ranks.apply(worker.introduce, one_host, token)]
