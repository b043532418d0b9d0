"""Watches a run from the driver's side, over connections of its own: a server that is busy holds up nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from paibook.comms.shared_channel import take_up
from paibook.comms.wire import Channel, ChannelClosed, HandshakeError, Header, Security, connect
from paibook.runtimes.ps.ending import receive
from paibook.runtimes.ps.messages import Op
from paibook.runtimes.ps.picture import picture
from paibook.runtimes.ps.views import View

WATCH_SECONDS = 0.5
REACH_SECONDS = 2.0
LAST_SECONDS = 2.0  # for the last look


class Observer:
    """Asks everybody how it stands, about twice a second; a thread of its own.

    Args:
        address: The coordinator's.
        token: The run's.
        show: Called from that thread with each picture.
        security: The run's, where connections are encrypted.
    """

    def __init__(
        self,
        address: tuple[str, int],
        token: bytes,
        show: Callable[[dict[str, Any]], None],
        security: Security | None = None,
    ) -> None:
        self._address = address
        self._token = token
        self._security = security
        self._show = show
        self._channels: dict[tuple[Any, ...], Channel] = {}
        self._before: dict[int, Any] = {}
        self._began = self._asked = time.monotonic()
        self._over = threading.Event()
        self.last: dict[str, Any] | None = None
        self._thread = threading.Thread(target=self._run, name="paibook-observer", daemon=True)
        self._thread.start()

    def finish(self) -> dict[str, Any] | None:
        """Take a last look while all are still there; a picture whose rates are those of the whole run."""
        self._over.set()
        self._thread.join(LAST_SECONDS)
        return self.last

    def close(self) -> None:
        """End the connections. Safe to repeat."""
        self._over.set()
        for channel in list(self._channels.values()):
            channel.close()

    def _run(self) -> None:
        over = False
        while not over:
            over = self._over.wait(WATCH_SECONDS)
            try:
                self._look()
            except (ChannelClosed, HandshakeError):
                pass  # the coordinator is being replaced, or the run is over
        self.close()

    def _look(self) -> None:
        status = self._ask(self._address)
        view = None if status["view"] is None else View.from_wire(status["view"])
        servers = {}
        for rank, address in {} if view is None else view.addresses.items():
            try:
                servers[rank] = self._ask(address)
            except (ChannelClosed, HandshakeError):
                pass  # it has just died; the next view says so
        now = time.monotonic()
        if self._over.is_set():
            self._before, self._asked = {}, self._began
        self.last = picture(status, servers, self._before, max(now - self._asked, 1e-3))
        self._before, self._asked = servers, now
        self._show(self.last)

    def _ask(self, address: tuple[Any, ...]) -> Any:
        channel = self._channels.get(address)
        try:
            if channel is None:
                host, port, *_ = address
                channel = take_up(connect((host, port), self._token, REACH_SECONDS, self._security))
                self._channels[address] = channel
                channel.send_json(Header(Op.JOIN), {"role": "observer"})
            channel.send(Header(Op.STATUS))
            return channel.receive_json(receive(channel))
        except ChannelClosed:
            if (dead := self._channels.pop(address, None)) is not None:
                dead.close()
            raise
