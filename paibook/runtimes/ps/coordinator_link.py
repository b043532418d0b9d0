"""A worker's connection to the coordinator, which is made anew when the coordinator's process is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from paibook.comms.shared_channel import take_up
from paibook.comms.wire import Channel, ChannelClosed, HandshakeError, Header, Security, connect
from paibook.errors import TableError
from paibook.runtimes.ps.ending import Over, receive
from paibook.runtimes.ps.messages import GO_ON, Op
from paibook.runtimes.ps.views import View

COORDINATOR_SECONDS = 60.0  # for a coordinator that died to be replaced
RETRY_SECONDS = 0.1
REACH_SECONDS = 5.0


class CoordinatorLink:
    """Asks the coordinator, one thing at a time.

    Args:
        address: Where it listens, and its successors do.
        token: The run's.
        rank, incarnation: The worker's.
        take: Gives the watched metrics logged since it was last called; they go with every clock.
        security: The run's, where connections are encrypted.

    Attributes:
        identity: The worker's rank and incarnation, as a server is told.
        clock: To which the worker has come; at first, to which the coordinator knows its rank to have come.
        retired: Whether its rank had left the run before.
    """

    def __init__(
        self,
        address: tuple[str, int],
        token: bytes,
        rank: int,
        incarnation: int,
        take: Callable[[], Mapping[str, float]] = dict,
        security: Security | None = None,
    ) -> None:
        self._address = address
        self._security = security
        self._token = token
        self._take = take
        self._metrics: dict[str, float] = {}  # the latest of each, for a coordinator that has not heard them
        self._channel: Channel | None = None
        self._retry_at = 0.0
        self.identity = {"rank": rank, "incarnation": incarnation}
        self.clock = 0
        told = self._patiently(lambda: self._joined)
        self.clock, self.retired = told["clock"], told["retired"]

    def view(self, after: int) -> View | None:
        """The latest view once it is newer than number ``after``, or after a moment; None before there is any."""
        told = self._ask(Op.VIEW, {"after": after})
        return None if told is None else View.from_wire(told)

    def declare(self, spec: Mapping[str, Any]) -> int:
        """A table's number.

        Raises:
            TableError: It was declared otherwise before.
        """
        return int(self._ask(Op.DECLARE, spec))

    def next_shard(self, call: int, count: int) -> dict[str, Any]:
        """The data shard to work on: ``shard``, or None, and whether all are ``over``."""
        told: dict[str, Any] = self._ask(Op.NEXT, {"call": call, "count": count, "clock": self.clock})
        return told

    def finish_shard(self, call: int, shard: int) -> None:
        """A data shard is done, and with it the clock that this worker is in."""
        self._ask(Op.DONE, {"call": call, "shard": shard, "clock": self.clock + 1})

    def tick(self, clock: int, waits: bool) -> tuple[bool, int]:
        """The worker has come to ``clock``: whether training goes on, and the number of the latest view.

        Args:
            waits: Wait for a coordinator that is being replaced; else training goes on meanwhile.
        """
        self.clock = clock
        if not waits and self._channel is None and time.monotonic() < self._retry_at:
            return True, 0
        metrics = self._fresh()
        try:
            if waits:
                header = self._patiently(lambda: self._exchange(Header(Op.CLOCK, clock=clock), metrics)[0])
            else:
                header, _ = self._exchange(Header(Op.CLOCK, clock=clock), metrics)
        except (ChannelClosed, HandshakeError):
            if waits:
                raise
            return True, 0
        return bool(header.flags & GO_ON), header.keys

    def retire(self) -> None:
        """The worker's ``train`` has returned."""
        metrics = self._fresh()
        self._patiently(lambda: self._exchange(Header(Op.RETIRE, clock=self.clock), metrics))

    def close(self) -> None:
        """End the connection."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    @property
    def _joined(self) -> dict[str, Any]:
        if self._channel is None:
            channel = take_up(connect(self._address, self._token, REACH_SECONDS, self._security))
            try:
                me = {"role": "worker", **self.identity, "clock": self.clock, "metrics": self._metrics}
                channel.send_json(Header(Op.JOIN), me)
                self._told = channel.receive_json(receive(channel))
            except BaseException:
                channel.close()
                raise
            self._channel = channel
        return self._told

    def _ask(self, op: Op, value: Any) -> Any:
        header, answer = self._patiently(lambda: self._exchange(Header(op), value))
        if header.op == Op.ERROR:
            raise TableError(answer["message"])
        return answer

    def _exchange(self, header: Header, value: Any) -> tuple[Header, Any]:
        """Send one request and read its answer, over a new connection where there is none."""
        try:
            assert self._joined is not None
            assert self._channel is not None
            self._channel.send(header, *((json.dumps(value).encode(),) if value else ()))
            answer = receive(self._channel)
            return answer, self._channel.receive_json(answer) if answer.length else None
        except (ChannelClosed, HandshakeError):
            self.close()
            self._retry_at = time.monotonic() + RETRY_SECONDS
            raise

    def _patiently(self, act: Callable[[], Any]) -> Any:
        """Do something that may fail while the coordinator is being replaced."""
        deadline = time.monotonic() + COORDINATOR_SECONDS
        while True:
            try:
                return act()
            except Over:
                raise
            except (ChannelClosed, HandshakeError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_SECONDS)

    def _fresh(self) -> dict[str, float]:
        fresh = dict(self._take())
        self._metrics.update(fresh)
        return fresh
