"""The coordinator's side of one worker's connection."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from paibook.comms.wire import Channel, Header
from paibook.errors import RunError, TableError
from paibook.runtimes.ps.messages import GO_ON, Op
from paibook.runtimes.ps.shards import TableSpec

if TYPE_CHECKING:
    from paibook.runtimes.ps.coordinator import Coordinator

VIEW_SECONDS = 0.5  # a worker that asks for a newer view is answered within this time, newer or not


class WorkerDesk:
    """Answers one worker's requests in their order.

    Args:
        coordinator: Whose desk it is.
        channel: To the worker.
        rank, incarnation: The worker's.
    """

    def __init__(self, coordinator: Coordinator, channel: Channel, rank: int, incarnation: int) -> None:
        self._coordinator = coordinator
        self._ledger = coordinator.ledger
        self._board = coordinator.board
        self._channel = channel
        self._rank = rank
        self._incarnation = incarnation
        self._do: dict[int, Callable[[Header, Any], None]] = {
            Op.VIEW: self._view,
            Op.DECLARE: self._declare,
            Op.CLOCK: self._clock,
            Op.RETIRE: self._retire,
            Op.NEXT: self._next,
            Op.DONE: self._done,
        }

    def serve(self, sequence: int, peer: dict[str, Any]) -> None:
        """Take the worker in, which says at which clock it is and what it last logged, and answer until it is gone.

        Raises:
            ChannelClosed: It is.
        """
        with self._board.changed:
            told = self._board.join(self._rank, self._incarnation)
            told["clock"] = self._coordinator.clock_of(self._rank)
            if self._ledger.began is None:
                self._ledger.write("began", time=self._board.began or time.time())
            for earlier in range(self._incarnation):
                self._coordinator.free(self._rank, earlier)
        self._board.advance(self._rank, self._incarnation, int(peer["clock"]), peer["metrics"])
        self._channel.send_json(Header(Op.OK, sequence=sequence), told)
        while True:
            header = self._channel.receive()
            value = self._channel.receive_json(header) if header.length else {}
            act = self._do.get(header.op)
            if act is None:
                raise RunError(f"worker rank {self._rank} asked for operation {header.op}, which is not one")
            try:
                act(header, value)
            except TableError as error:
                self._channel.send_json(Header(Op.ERROR, sequence=header.sequence), {"message": str(error)})

    def _answer(self, header: Header, value: Any) -> None:
        self._channel.send_json(Header(Op.OK, sequence=header.sequence), value)

    def _view(self, header: Header, value: dict[str, Any]) -> None:
        with self._board.changed:
            self._board.wait(lambda: self._number > value["after"], VIEW_SECONDS)
            view = self._ledger.view
        self._answer(header, None if view is None else view.to_wire())

    def _declare(self, header: Header, value: dict[str, Any]) -> None:
        with self._board.changed:
            number = self._ledger.table(TableSpec.from_wire(value))
        self._answer(header, number)

    def _clock(self, header: Header, metrics: dict[str, float]) -> None:
        self._board.advance(self._rank, self._incarnation, header.clock, metrics)
        goes_on = self._board.goes_on(self._rank, header.clock)
        self._channel.send(Header(Op.OK, GO_ON if goes_on else 0, sequence=header.sequence, keys=self._number))

    def _retire(self, header: Header, metrics: dict[str, float]) -> None:
        with self._board.changed:
            self._ledger.write("retired", rank=self._rank, clock=header.clock)
            self._coordinator.free(self._rank, self._incarnation)
        self._board.retire(self._rank, self._incarnation, metrics)
        self._answer(header, None)

    def _next(self, header: Header, value: dict[str, Any]) -> None:
        """A data shard; or that all are done; or, when others finish the clock, that this worker does so too."""
        with self._board.changed:
            shards = self._ledger.shards(value["call"], value["count"])
            given: list[int] = []

            def ready() -> bool:
                shard = self._ledger.give(value["call"], (self._rank, self._incarnation))
                given.extend([] if shard is None else [shard])
                return bool(given) or shards.over or self._others_are_past(value["clock"])

            self._board.wait(ready)
        self._answer(header, {"shard": given[0] if given else None, "over": not given and shards.over})

    def _done(self, header: Header, value: dict[str, Any]) -> None:
        with self._board.changed:
            self._ledger.finish(value["call"], value["shard"], (self._rank, self._incarnation), value["clock"])
            self._board.changed.notify_all()
        self._answer(header, None)

    def _others_are_past(self, clock: int) -> bool:
        retired = self._board.vector.retired
        others = [r for r in range(self._coordinator.scene.world_size) if r != self._rank and r not in retired]
        return any(self._coordinator.clock_of(rank) > clock for rank in others)

    @property
    def _number(self) -> int:
        return 0 if self._ledger.view is None else self._ledger.view.number
