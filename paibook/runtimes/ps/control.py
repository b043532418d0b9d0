"""The driver's connections: to the coordinator, which knows how far the run is, and to the servers with the model."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from paibook.clusters.contract import Event, OnEvent
from paibook.comms.shared_channel import take_up
from paibook.comms.wire import Channel, ChannelClosed, HandshakeError, Header, Security, connect
from paibook.runtimes.ps.ending import receive
from paibook.runtimes.ps.messages import COORDINATOR_MIME, Op
from paibook.runtimes.ps.shards import TableSpec
from paibook.runtimes.ps.views import Address, View

FETCH_BYTES = 256 << 20
REACH_SECONDS = 5.0


class AddressBook:
    """Hears where the coordinator listens from its events, and passes every other event on."""

    def __init__(self, emit: OnEvent) -> None:
        self._emit = emit
        self._found: tuple[str, int] | None = None
        self._changed = threading.Condition()

    def on_event(self, event: Event) -> None:
        """For ``Ranks.apply``."""
        data = event.data
        if event.kind != "display" or not isinstance(data, dict) or COORDINATOR_MIME not in data:
            self._emit(event)
            return
        entry = data[COORDINATOR_MIME]
        with self._changed:
            self._found = (str(entry["host"]), int(entry["port"]))
            self._changed.notify_all()

    def wait(self, seconds: float) -> tuple[str, int] | None:
        """The address, once it is known, or None after at most ``seconds``."""
        with self._changed:
            self._changed.wait_for(lambda: self._found is not None, seconds)
            return self._found


@dataclass(frozen=True)
class Model:
    """What the servers hold.

    Attributes:
        size: Bytes of all tables' weights.
        shards: For each shard: ``table``, ``server``, ``rows``, and what ``Shard.usage`` says.
        tables: Name to weights; None where they were not asked for.
    """

    size: int
    shards: tuple[dict[str, Any], ...]
    tables: dict[str, Any] | None


class Control:
    """Authenticated channels to the coordinator and the servers; when they close, those end.

    For one thread; ``close`` may come from any, and frees it.

    Args:
        address: The coordinator's, and its successors'.
        token: The run's.
        security: The run's, where connections are encrypted.
    """

    def __init__(self, address: tuple[str, int], token: bytes, security: Security | None = None) -> None:
        self._security = security
        self._address = address
        self._token = token
        self._coordinator: Channel | None = None
        self._servers: dict[Address, Channel] = {}
        self._view: View | None = None
        self._open: set[Channel] = set()  # all there are, those that are being joined too
        self._gate = threading.Lock()
        self._closed = False

    def status(self) -> dict[str, Any]:
        """How far the run is: ``clock``, ``reason`` and, where a part of the model is lost, ``fatal``.

        Raises:
            ChannelClosed: The coordinator does not answer at present.
        """
        status: dict[str, Any] = self._ask(Op.STATUS, {})
        if status["view"] is not None:
            self._view = View.from_wire(status["view"])
            self._follow(self._view)
        return status

    def lost(self, role: str, rank: int, incarnation: int) -> None:
        """Tell the coordinator of a process that has ended.

        Raises:
            ChannelClosed: The coordinator does not answer at present.
        """
        self._ask(Op.LOST, {"role": role, "rank": rank, "incarnation": incarnation})

    def fetch(self, limit: int = FETCH_BYTES) -> Model:
        """What the servers hold; without the tables' weights where they are more than ``limit`` bytes.

        Raises:
            ChannelClosed: A server has died; once it is replaced, ask again.
        """
        self.status()
        assert self._view is not None
        primaries = [self._servers.get(self._view.addresses[rank]) for rank in self._view.primaries]
        channels = [channel for channel in primaries if channel is not None]
        if len(channels) < len(primaries):
            raise ChannelClosed("the notebook cannot reach every parameter server at present")
        described = [_describe(channel, partition) for partition, channel in enumerate(channels)]
        size = sum(shard["bytes"] for shards in described for shard in shards)
        usage = tuple(
            {"table": shard["spec"]["name"], "server": server, **{k: v for k, v in shard.items() if k != "spec"}}
            for server, shards in zip(self._view.primaries, described, strict=True)
            for shard in shards
        )
        if size > limit:
            return Model(size, usage, None)
        names = {shard["number"]: shard["spec"]["name"] for shards in described for shard in shards}
        tables = {names[number]: _fetch_table(channels, number, described) for number in sorted(names)}
        return Model(size, usage, tables)

    def shutdown(self) -> None:
        """Tell everybody that the run is over."""
        # The servers first: they may still have something to tell the coordinator.
        for channel in [*self._servers.values(), *([] if self._coordinator is None else [self._coordinator])]:
            try:
                channel.send(Header(Op.SHUTDOWN))
                channel.receive()
            except ChannelClosed:
                pass  # it has died at the very end; nobody needs it any more
        self.close()

    def close(self) -> None:
        """End the connections: who waits for an answer gets ``ChannelClosed``. Safe to repeat, and from any thread."""
        with self._gate:
            self._closed = True
            channels = tuple(self._open)
        for channel in channels:
            channel.close()

    def _ask(self, op: Op, value: dict[str, Any]) -> Any:
        if self._closed:
            raise ChannelClosed("the run is over")
        try:
            if self._coordinator is None:
                self._coordinator = self._join(self._address)
            self._coordinator.send_json(Header(op), value)
            header = receive(self._coordinator)
            return self._coordinator.receive_json(header) if header.length else None
        except (ChannelClosed, HandshakeError) as error:
            if self._coordinator is not None:
                self._end(self._coordinator)
            self._coordinator = None
            raise ChannelClosed(f"the coordinator does not answer: {error}") from error

    def _follow(self, view: View) -> None:
        """Be connected to the servers of a view: they live as long as the driver is there."""
        wanted = set(view.addresses.values())
        for address in [known for known in self._servers if known not in wanted]:
            self._end(self._servers.pop(address))
        for address in wanted - set(self._servers):
            try:
                self._servers[address] = self._join(address[:2])
            except (ChannelClosed, HandshakeError):
                pass  # it has just died; the next view says so

    def _join(self, address: tuple[str, int]) -> Channel:
        connected = self._opened(connect(address, self._token, REACH_SECONDS, self._security))
        channel = connected
        try:
            channel = self._opened(take_up(connected))
            channel.send(Header(Op.JOIN), json.dumps({"role": "driver", "rank": -1}).encode())
            receive(channel)
        except BaseException:
            self._end(channel)
            raise
        finally:
            if channel is not connected:
                self._open.discard(connected)  # its socket is the other's by now
        return channel

    def _opened(self, channel: Channel) -> Channel:
        with self._gate:
            if not self._closed:
                self._open.add(channel)
                return channel
        channel.close()
        raise ChannelClosed("the run is over")

    def _end(self, channel: Channel) -> None:
        with self._gate:
            self._open.discard(channel)
        channel.close()


def _describe(channel: Channel, partition: int) -> list[dict[str, Any]]:
    channel.send(Header(Op.DESCRIBE, table=partition))
    shards: list[dict[str, Any]] = channel.receive_json(channel.receive())
    return shards


def _fetch_table(channels: list[Channel], number: int, described: list[list[dict[str, Any]]]) -> Any:
    parts = []
    for partition, (channel, shards) in enumerate(zip(channels, described, strict=True)):
        for shard in shards:
            if shard["number"] == number:
                parts.append(_fetch_shard(channel, number * len(channels) + partition, shard))
    rows = np.concatenate([part for _, part in parts])
    if parts[0][0] is None:
        return rows
    keys = np.concatenate([part for part, _ in parts])
    order = np.argsort(keys)
    return keys[order], rows[order]


def _fetch_shard(channel: Channel, which: int, shard: dict[str, Any]) -> tuple[Any, Any]:
    spec = TableSpec.from_wire(shard["spec"])
    keys = np.empty(shard["rows"] if spec.sparse else 0, np.int64)
    rows = np.empty((shard["rows"], *spec.row_shape), spec.dtype)
    channel.send(Header(Op.FETCH, table=which))
    done = 0
    while count := channel.receive().keys:
        if spec.sparse:
            channel.receive_into(keys[done : done + count])
        channel.receive_into(rows[done : done + count])
        done += count
    return keys if spec.sparse else None, rows
