"""Where a rank keeps snapshots: its own, and the part that belongs to the rank before it alone.

Peers reach a keeper over ``paibook.comms.wire``, which authenticates both sides; it lives as long as its process, from
world to world, so that whoever takes a lost rank's place can ask for what is left of it.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from paibook.comms import wire
from paibook.comms.communicator import CommunicatorError
from paibook.comms.messages import Message

Address = tuple[str, int]

GENERATIONS = 2  # a rank may die while it commits: then the others go back to the snapshot before
PUT, GET, DATA, MISSING = 1, 2, 3, 4
SHARED = -1  # in place of a rank: the entries that are the same on all


@dataclass(frozen=True, order=True)
class Mark:
    """Which snapshot: commits are counted through, and attempts at running the cell set their rewrites apart.

    Attributes:
        attempt: At running the cell; a later one's snapshots are the newer.
        commit: Its number; 0 is what ``pai.state`` was given.
        size: Ranks of the group that made it.
        step: The entry ``step``, where it is a whole number.
        per_rank: Whether ranks have entries of their own in it.
        torch: Whether the rank that made it had imported torch.
    """

    attempt: int
    commit: int
    size: int = field(compare=False, default=0)
    step: int | None = field(compare=False, default=None)
    per_rank: bool = field(compare=False, default=False)
    torch: bool = field(compare=False, default=False)

    def __str__(self) -> str:
        return f"commit {self.commit}" + (f" (step {self.step})" if self.step is not None else "")


@dataclass(frozen=True)
class Kept:
    """What lies in one rank's keeper.

    Attributes:
        shared: Snapshots whose common entries are there.
        parts: Snapshots, and the ranks (of the group that made them) whose own entries are there.
        step: Where this rank was when it said so.
    """

    shared: frozenset[Mark] = frozenset()
    parts: Mapping[Mark, frozenset[int]] = field(default_factory=dict)
    step: int | None = None


@dataclass(frozen=True)
class Recovery:
    """Where the ranks of a new group find a snapshot.

    Attributes:
        mark: Which.
        shared: Rank of the new group that has the common entries.
        parts: For each rank of the group that made it, the rank of the new group that has its own entries.
    """

    mark: Mark
    shared: int
    parts: Mapping[int, int]


class Keeper:
    """One rank's snapshots, and the door through which its peers reach them."""

    def __init__(self) -> None:
        self.address: Address | None = None
        self._token = b""
        self._listener: socket.socket | None = None
        self._messages: dict[int, dict[Mark, Message]] = {}  # by rank or SHARED
        self._lock = threading.Lock()

    def listen(self, host: str, token: bytes) -> Address:
        """Let peers that hold ``token`` in, at an address of ``host``."""
        self._token = token
        if self._listener is None or self.address is None or self.address[0] != host:
            self.close()
            self._listener = wire.listen(host)
            self.address = self._listener.getsockname()[:2]
            threading.Thread(target=self._accept, args=(self._listener,), name="paibook-keeper", daemon=True).start()
        return self.address

    def close(self) -> None:
        """Let nobody in any more."""
        if self._listener is not None:
            try:
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
            except OSError:
                pass  # closed before
            self._listener.close()
            self._listener = None

    def put(self, mark: Mark, owner: int, message: Message) -> None:
        """Keep a part; the owner's oldest of the same attempt goes when there are more than ``GENERATIONS``."""
        with self._lock:
            mine = self._messages.setdefault(owner, {})
            mine[mark] = message
            # Those of the attempt before stay until all ranks have gone on from them.
            for old in sorted(other for other in mine if other.attempt == mark.attempt)[:-GENERATIONS]:
                del mine[old]

    def get(self, mark: Mark, owner: int) -> Message | None:
        """A part, or None where it is not here."""
        with self._lock:
            return self._messages.get(owner, {}).get(mark)

    def drop(self, before: int | None = None) -> None:
        """Forget the snapshots of attempts before this one; all by default."""
        with self._lock:
            for mine in self._messages.values():
                for old in [mark for mark in mine if before is None or mark.attempt < before]:
                    del mine[old]

    def kept(self, step: int | None = None) -> Kept:
        """What is here."""
        with self._lock:
            shared = frozenset(self._messages.get(SHARED, ()))
            owners: dict[Mark, set[int]] = {}
            for owner, mine in self._messages.items():
                for mark in mine if owner != SHARED else ():
                    owners.setdefault(mark, set()).add(owner)
        return Kept(shared, {mark: frozenset(ranks) for mark, ranks in owners.items()}, step)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(connection,), name="paibook-keeper", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            channel = wire.accept(connection, self._token)
        except (wire.ChannelClosed, wire.HandshakeError):
            return  # a stranger, or a peer that left while greeting: nothing was read from it
        try:
            while True:
                self._answer(channel, channel.receive())
        except wire.ChannelClosed:
            return  # the peer is done
        finally:
            channel.close()

    def _answer(self, channel: wire.Channel, header: wire.Header) -> None:
        owner, *numbers = channel.receive_json(header)
        mark = Mark(*numbers)
        if header.op == PUT:
            length = channel.receive().length
            self.put(mark, owner, channel.receive_array(length, np.uint8))
            channel.send(wire.Header(DATA))
            return
        message = self.get(mark, owner)
        channel.send(wire.Header(MISSING if message is None else DATA), *([] if message is None else [message]))


class PeerKeeper:
    """Another rank's keeper; connects when it is first used.

    Args:
        rank: Whose it is, for messages.
        address: Where it listens.
        token: What lets this rank in.
    """

    def __init__(self, rank: int, address: Address, token: bytes) -> None:
        self._rank, self._address, self._token = rank, address, token
        self._channel: wire.Channel | None = None

    def put(self, mark: Mark, owner: int, message: Message) -> None:
        """Have a part kept there; returns when it is.

        Raises:
            CommunicatorError: That rank is gone.
        """
        try:
            channel = self._connected()
            channel.send_json(wire.Header(PUT), _words(owner, mark))
            channel.send(wire.Header(DATA), message)
            channel.receive()
        except (wire.ChannelClosed, wire.HandshakeError) as error:
            raise CommunicatorError(f"commit: rank {self._rank} cannot keep a part: {error}") from error

    def get(self, mark: Mark, owner: int) -> Message:
        """Fetch a part.

        Raises:
            CommunicatorError: That rank is gone, or does not have it.
        """
        try:
            channel = self._connected()
            channel.send_json(wire.Header(GET), _words(owner, mark))
            header = channel.receive()
            if header.op == DATA:
                return channel.receive_array(header.length, np.uint8)
        except (wire.ChannelClosed, wire.HandshakeError) as error:
            raise CommunicatorError(f"pai.state: rank {self._rank} cannot be asked for {mark}: {error}") from error
        raise CommunicatorError(f"pai.state: rank {self._rank} does not have {mark} any more")

    def close(self) -> None:
        """End the connection."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _connected(self) -> wire.Channel:
        if self._channel is None:
            self._channel = wire.connect(self._address, self._token)
        return self._channel


def _words(owner: int, mark: Mark) -> list[int | bool | None]:
    return [owner, mark.attempt, mark.commit, mark.size, mark.step, mark.per_rank, mark.torch]
