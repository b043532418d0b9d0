"""A server's connection to the coordinator: views come over it, and news of copies and checkpoints go."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from paibook.comms.shared_channel import take_up
from paibook.comms.wire import Channel, ChannelClosed, HandshakeError, Header, connect
from paibook.errors import RunError
from paibook.program import capture_error
from paibook.runtimes.ps.messages import Op
from paibook.runtimes.ps.views import View

if TYPE_CHECKING:
    from paibook.runtimes.ps.server import Server

COORDINATOR_SECONDS = 60.0  # for a coordinator that died to be replaced; training goes on meanwhile
RETRY_SECONDS = 0.1
REACH_SECONDS = 5.0
HEARD_SECONDS = 5.0


class Evicted(RunError):
    """The coordinator took this server for dead and gave its place to others."""


class Membership:
    """Keeps a server in the run's views; a thread of its own.

    Args:
        server: Adopts the views.
        address: Where it listens.
    """

    def __init__(self, server: Server, address: tuple[str, int]) -> None:
        self._server = server
        self._address = address
        self._channel: Channel | None = None
        self._heard = threading.Event()
        self._lock = threading.Lock()
        self._copies: set[tuple[int, int, int]] = set()  # said again to a coordinator that may not have heard it

    def start(self) -> None:
        """Join the run."""
        threading.Thread(target=self._run, name="paibook-membership", daemon=True).start()

    def in_sync(self, partition: int, server: int, incarnation: int) -> None:
        """Another server's process has a copy of a partition now."""
        with self._lock:
            self._copies.add((partition, server, incarnation))
        self._tell(Op.IN_SYNC, {"partition": partition, "server": server, "incarnation": incarnation})

    def saved(self, clock: int, partition: int, tables: list[dict[str, Any]]) -> None:
        """A partition's part of a checkpoint is on disk; waits until the coordinator has heard of it, while it can."""
        self._heard.clear()
        self._tell(Op.SAVED, {"clock": clock, "partition": partition, "tables": tables})
        self._heard.wait(HEARD_SECONDS)

    def close(self) -> None:
        """End the connection."""
        with self._lock:
            if self._channel is not None:
                self._channel.close()

    def _tell(self, op: Op, value: dict[str, Any]) -> None:
        with self._lock:
            try:
                if self._channel is not None:
                    self._channel.send_json(Header(op), value)
            except ChannelClosed:
                pass  # our thread connects anew

    def _run(self) -> None:
        deadline = time.monotonic() + COORDINATOR_SECONDS
        while not self._server.over:
            try:
                coordinator, security = self._server.job.coordinator, self._server.security
                channel = take_up(connect(coordinator, self._server.token, REACH_SECONDS, security))
            except (ChannelClosed, HandshakeError) as error:
                if time.monotonic() > deadline:
                    self._server.end(RunError(f"{self._server.name} cannot reach the coordinator: {error}"))
                time.sleep(RETRY_SECONDS)
                continue
            try:
                self._listen(channel)
            except ChannelClosed:
                pass
            except RunError as error:
                self._server.end(error)
            except Exception as error:  # the cell's `update` among them
                self._server.end(capture_error(error, self._server.name))
            finally:
                channel.close()
            deadline = time.monotonic() + COORDINATOR_SECONDS

    def _listen(self, channel: Channel) -> None:
        job = self._server.job
        me = {"role": "server", "rank": job.rank, "incarnation": job.incarnation, "address": list(self._address)}
        channel.send_json(Header(Op.JOIN), me)
        with self._lock:
            self._channel = channel
            for partition, server, incarnation in self._copies:
                told = {"partition": partition, "server": server, "incarnation": incarnation}
                channel.send_json(Header(Op.IN_SYNC), told)
        while True:
            header = channel.receive()
            if header.op == Op.ERROR:
                raise Evicted(channel.receive_json(header)["message"])
            if header.op == Op.SHUTDOWN:
                self._server.end()
                return
            if header.op == Op.SAVED:
                self._heard.set()
                continue
            told = channel.receive_json(header)
            if header.op == Op.YIELD:
                self._server.step_down(told["partition"])
                self._tell(Op.YIELDED, told)
                continue
            view = View.from_wire(told["view"])
            with self._lock:  # a copy that has become a backup, or is made anew, is nothing to say any more
                self._copies = {copy for copy in self._copies if view.building[copy[0]] == copy[1]}
            self._server.adopt(view, told["known"])
