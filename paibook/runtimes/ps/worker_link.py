"""The server's side of one worker's connection."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from paibook.comms.shared_channel import shared_bytes
from paibook.comms.wire import Channel, ChannelClosed, Header
from paibook.errors import RunError, TableError
from paibook.program import capture_error
from paibook.runtimes.ps.acknowledger import Acknowledger
from paibook.runtimes.ps.chain import receive_gradient
from paibook.runtimes.ps.filters import FILTERS, encode
from paibook.runtimes.ps.key_sets import ReceivedKeys
from paibook.runtimes.ps.messages import PUSHED, Op
from paibook.runtimes.ps.partition import Partition
from paibook.runtimes.ps.shards import TableSpec

if TYPE_CHECKING:
    from paibook.runtimes.ps.server import Server
    from paibook.runtimes.ps.tables import Shard

ROOM_BYTES = 128 << 20  # of a whole table's gradient, for which a connection keeps memory


class WorkerLink:
    """Answers one worker, by the number of each request; pushes are acknowledged apart, when they are safe.

    Args:
        server: Whose link it is.
        channel: To the worker, which has joined; several threads may send to it.
        rank, incarnation: The worker's.
    """

    def __init__(self, server: Server, channel: Channel, rank: int, incarnation: int) -> None:
        self._server = server
        self._channel = channel
        self._rank = rank
        self._incarnation = incarnation
        rings = shared_bytes(channel)
        server.reserve(rank, rings)
        self._known = ReceivedKeys(lambda keys: server.reserve(rank, rings + keys))
        self._stable = server.scene.consistency.buffers
        # Pushes that are applied at once leave the memory they came into; fresh memory takes longer than the copy.
        self._keeps_room = not self._stable and server.job.storage.memory is None
        self._room: NDArray[Any] | None = None
        self._acknowledger = Acknowledger(self._send)  # for the chains' threads
        self._thread = 0  # our own
        self._do: dict[int, Callable[[Header], None]] = {
            Op.PULL: self._pull,
            Op.PUSH: self._push,
            Op.CLOCK: self._clock,
            Op.BEGIN: self._begin,
            Op.DECLARE: self._declare,
            Op.RETIRE: self._retire,
        }

    def loop(self) -> None:
        """Answer requests in order until the worker is gone.

        Raises:
            ChannelClosed: It is.
            UserCodeError: The cell's ``update`` raised.
        """
        self._thread = threading.get_ident()
        try:
            while True:
                header = self._channel.receive()
                act = self._do.get(header.op)
                if act is None:
                    raise RunError(f"worker rank {self._rank} asked for operation {header.op}, which is not one")
                act(header)
        finally:
            self._acknowledger.close()

    def _pull(self, header: Header) -> None:
        keys = self._known.receive(header, self._channel)
        partition, _, shard = self._shard(header)
        slowest = self._server.board.wait_to_read(self._rank, header.clock)
        try:
            with partition.lock:
                if not partition.primary:
                    raise ChannelClosed("another server answers for it by now")
                rows = shard.read(keys, self._stable)
        except TableError as error:
            self._refuse(header, error)
            return
        staleness = header.clock - slowest
        self._server.activity.pulled(self._rank, shard.spec.name, keys, rows, staleness, shard.first)
        sent = encode(header.flags & FILTERS, rows) if header.flags & FILTERS else [rows]
        self._send(Header(Op.OK, sequence=header.sequence, clock=slowest), *sent)

    def _push(self, header: Header) -> None:
        partition, number, shard = self._shard(header)
        keys = self._known.receive(header, self._channel)
        gradient = receive_gradient(self._channel, header, shard, keys, self._room)
        if self._keeps_room and keys is None and not header.flags & FILTERS and gradient.nbytes <= ROOM_BYTES:
            self._room = gradient
        self._server.activity.pushed(self._rank, shard.spec.name, keys, gradient, shard.first)
        keys, gradient, skipped = shard.finite(keys, gradient, self._rank, header.clock)
        worker = (self._rank, self._incarnation)
        answer = Header(Op.ACK, table=partition.number, sequence=header.sequence)
        try:
            self._guard(
                lambda: partition.push(number, worker, header, keys, gradient, lambda _: self._tell(answer), skipped)
            )
        except TableError as error:
            told = Header(Op.ERROR, PUSHED, table=partition.number, sequence=header.sequence)
            self._send_message(told, error)

    def _clock(self, header: Header) -> None:
        self._guard(lambda: self._server.board.advance(self._rank, self._incarnation, header.clock))

    def _begin(self, header: Header) -> None:
        told = self._channel.receive_json(header)
        self._guard(lambda: self._server.begin(self._rank, self._incarnation, told["base"], told["clock"]))

    def _retire(self, header: Header) -> None:
        self._guard(lambda: self._server.board.retire(self._rank, self._incarnation))
        self._send(Header(Op.OK, sequence=header.sequence))

    def _declare(self, header: Header) -> None:
        spec = TableSpec.from_wire(self._channel.receive_json(header))
        number, partition = divmod(header.table, len(self._server.partitions))
        answer = Header(Op.OK, sequence=header.sequence, table=number)
        try:
            self._server.primary(partition).declare(number, spec, lambda _: self._tell(answer))
        except TableError as error:
            self._refuse(header, error)

    def _shard(self, header: Header) -> tuple[Partition, int, Shard]:
        number, which = divmod(header.table, len(self._server.partitions))
        partition = self._server.primary(which)
        shard = partition.shards.get(number)
        if shard is None:
            raise RunError(f"worker rank {self._rank} asked for table {number}, which it has not declared")
        return partition, number, shard

    def _refuse(self, header: Header, error: TableError) -> None:
        self._send_message(Header(Op.ERROR, sequence=header.sequence), error)

    def _send_message(self, header: Header, error: TableError) -> None:
        self._channel.send_json(header, {"message": str(error)})

    def _send(self, header: Header, *buffers: NDArray[Any]) -> None:
        self._channel.send(header, *buffers)

    def _tell(self, header: Header) -> None:
        """From any thread: whoever acknowledges does not care whether the worker lives, or reads."""
        try:
            if threading.get_ident() == self._thread:
                self._send(header)
            elif not self._channel.send_at_once(header):  # a chain's, for which other workers wait too
                self._acknowledger.tell(header)
        except ChannelClosed:
            pass  # read in our own loop

    def _guard(self, act: Callable[[], None]) -> None:
        """Do what may run the cell's ``update``; when it raises, that is the run's error, wherever it surfaces."""
        try:
            act()
        except (ChannelClosed, TableError, RunError):
            raise
        except Exception as error:
            raise capture_error(error, self._server.name) from error
