"""The driver's connections to the servers: it hears where they listen, asks how far they are, and fetches the model."""

from __future__ import annotations

import json
import threading
from typing import Any

import numpy as np

from paibook.clusters.contract import Event, OnEvent
from paibook.comms.shared_channel import take_up
from paibook.comms.wire import Channel, ChannelClosed, HandshakeError, Header, Security, connect
from paibook.runtimes.ps.messages import SERVER_MIME, Op
from paibook.runtimes.ps.shards import TableSpec

FETCH_BYTES = 256 << 20


class AddressBook:
    """Collects the servers' announcements from their events, and passes every other event on."""

    def __init__(self, servers: int, emit: OnEvent) -> None:
        self._emit = emit
        self._servers = servers
        self._found: dict[int, tuple[str, int]] = {}
        self._changed = threading.Condition()

    def on_event(self, event: Event) -> None:
        """For ``Ranks.apply``."""
        data = event.data
        if event.kind != "display" or not isinstance(data, dict) or SERVER_MIME not in data:
            self._emit(event)
            return
        entry = data[SERVER_MIME]
        with self._changed:
            self._found[int(entry["rank"])] = (str(entry["host"]), int(entry["port"]))
            self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Whether all have announced themselves, after at most ``seconds``."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._found) == self._servers, seconds)

    def addresses(self) -> tuple[tuple[str, int], ...]:
        """(host, port) in rank order."""
        return tuple(self._found[rank] for rank in range(self._servers))


class Control:
    """One authenticated channel to each server; when they close, the servers end."""

    def __init__(self, addresses: tuple[tuple[str, int], ...], token: bytes, security: Security | None = None) -> None:
        self._channels: list[Channel] = []
        try:
            for address in addresses:
                channel = take_up(connect(address, token, security=security))
                self._channels.append(channel)
                channel.send(Header(Op.JOIN), json.dumps({"role": "driver", "rank": -1}).encode())
                channel.receive()
        except (ChannelClosed, HandshakeError) as error:
            self.close()
            raise ChannelClosed(f"the notebook cannot talk to the parameter servers: {error}") from error

    def status(self) -> dict[str, Any]:
        """How far server 0 says the run has come: ``clock`` and ``reason``."""
        channel = self._channels[0]
        channel.send(Header(Op.STATUS))
        status: dict[str, Any] = channel.receive_json(channel.receive())
        return status

    def fetch(self, limit: int = FETCH_BYTES) -> tuple[int, dict[str, Any] | None]:
        """The bytes of all tables, and the tables themselves unless they are more than ``limit``."""
        described = [self._describe(channel) for channel in self._channels]
        size = sum(shard["bytes"] for shards in described for shard in shards)
        if size > limit:
            return size, None
        # Workers may have declared their tables in another order on each server, so go by name.
        names = dict.fromkeys(shard["spec"]["name"] for shards in described for shard in shards)
        return size, {name: self._fetch_table(name, described) for name in names}

    def shutdown(self) -> None:
        """Tell every server that the run is over."""
        for channel in self._channels:
            channel.send(Header(Op.SHUTDOWN))
        for channel in self._channels:
            channel.receive()
        self.close()

    def close(self) -> None:
        """End the connections. Safe to repeat, and from any thread."""
        for channel in self._channels:
            channel.close()

    def _describe(self, channel: Channel) -> list[dict[str, Any]]:
        channel.send(Header(Op.DESCRIBE))
        shards: list[dict[str, Any]] = channel.receive_json(channel.receive())
        return shards

    def _fetch_table(self, name: str, described: list[list[dict[str, Any]]]) -> Any:
        parts = []
        for channel, shards in zip(self._channels, described, strict=True):
            for number, shard in enumerate(shards):
                if shard["spec"]["name"] == name:
                    parts.append(_fetch_shard(channel, number, shard))
        rows = np.concatenate([part for _, part in parts])
        if parts[0][0] is None:
            return rows
        keys = np.concatenate([part for part, _ in parts])
        order = np.argsort(keys)
        return keys[order], rows[order]


def _fetch_shard(channel: Channel, number: int, shard: dict[str, Any]) -> tuple[Any, Any]:
    spec = TableSpec.from_wire(shard["spec"])
    channel.send(Header(Op.FETCH, table=number))
    channel.receive()
    keys = channel.receive_array(shard["rows"], np.int64) if spec.sparse else None
    return keys, channel.receive_array((shard["rows"], *spec.row_shape), spec.dtype)
