"""The links of a partition's chain: each server passes on what it does to the next, which says when it has done it.

A follower is always given a copy of the whole first. While it is made, in memory, the partition stands still; what is
done from then on is sent after it. Operations are numbered, and confirmed up to a number.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from paibook.comms.shared_channel import take_up
from paibook.comms.wire import Channel, ChannelClosed, HandshakeError, Header, Security, connect
from paibook.errors import RunError
from paibook.runtimes.ps.filters import receive
from paibook.runtimes.ps.messages import KNOWN_KEYS, WHOLE, Op
from paibook.runtimes.ps.partition import Partition
from paibook.runtimes.ps.shards import TableSpec
from paibook.runtimes.ps.views import Address

if TYPE_CHECKING:
    from paibook.runtimes.ps.tables import Shard

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.1  # between attempts to reach a follower that the view says is there

Array = NDArray[Any]


class Successor:
    """A partition's follower on another server; a thread of its own brings it up to date and hears what it has done.

    Args:
        partition: What is passed on.
        address: Of the server that follows.
        token: The run's.
        in_sync: Called once everything waits for the follower, and it has all that did not.
        security: The run's, where connections are encrypted.
    """

    def __init__(
        self,
        partition: Partition,
        address: Address,
        token: bytes,
        in_sync: Callable[[], None],
        security: Security | None = None,
    ) -> None:
        self.address = address
        self._partition = partition
        self._token = token
        self._in_sync = in_sync
        self._security = security
        self._channel: Channel | None = None
        self._queue: list[tuple[Header, tuple[Array | bytes, ...]]] | None = None  # what is done while a copy is sent
        self._direct = False
        self._closed = threading.Event()
        name = f"paibook-chain-{partition.number}"
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def forward(self, header: Header, *buffers: Array | bytes) -> None:
        """Pass an operation on; called with the partition locked."""
        if self._queue is not None:
            # Copied: whoever owns the arrays may change them before they are sent.
            copies = tuple(b.copy() if isinstance(b, np.ndarray) else b for b in buffers)
            self._queue.append((header, copies))
        elif self._direct and self._channel is not None:
            try:
                self._channel.send(header, *buffers)
            except ChannelClosed:
                self._direct = False  # our thread hears of it too, and begins anew

    def restart(self) -> None:
        """Give the follower a new copy; called with the partition locked."""
        self._direct, self._queue = False, None
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def close(self) -> None:
        """End the link. Safe to repeat."""
        self._closed.set()
        self.restart()

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._link()
            except (ChannelClosed, HandshakeError) as error:
                log.debug("the chain of partition %d is cut: %s", self._partition.number, error)
            with self._partition.lock:
                self._direct, self._queue = False, None
            self._closed.wait(RETRY_SECONDS)

    def _link(self) -> None:
        """One connection, from the copy to its end."""
        channel = take_up(connect(self.address[:2], self._token, security=self._security))
        try:
            channel.send_json(Header(Op.JOIN), {"role": "replica", "partition": self._partition.number})
            with self._partition.lock:
                if self._closed.is_set():
                    return
                described, arrays = self._partition.snapshot()
                self._channel, self._queue = channel, []
            channel.send_json(Header(Op.LOAD), described)
            for array in arrays:
                channel.send(Header(Op.LOAD), array)
            self._hear(channel, self._catch_up(channel))
        finally:
            channel.close()

    def _catch_up(self, channel: Channel) -> int:
        """Send what was done meanwhile until nothing is left; returns the number of the last operation."""
        while True:
            with self._partition.lock:
                if self._queue is None or self._channel is not channel:
                    # Somebody else follows by now, or all is to be sent again: nothing may wait for this follower.
                    raise ChannelClosed(f"the chain of partition {self._partition.number} has changed")
                batch, self._queue = self._queue, []
                if not batch:
                    self._queue, self._direct = None, True
                    return self._partition.index
            for header, buffers in batch:
                channel.send(header, *buffers)

    def _hear(self, channel: Channel, behind: int) -> None:
        """Pass on what the follower confirms; count on it once it has come to operation ``behind``.

        Not before: it takes its time to take the copy in, and nobody's push is to wait for that.
        """
        while (done := channel.receive().key_set) < behind:
            self._confirm(channel, done)
        with self._partition.lock:
            if self._channel is not channel:
                raise ChannelClosed(f"the chain of partition {self._partition.number} has changed")
            self._partition.require()
            everything = self._partition.index
        told = False
        while True:
            self._confirm(channel, done)
            if not told and done >= everything:
                told = True
                self._in_sync()
            done = channel.receive().key_set

    def _confirm(self, channel: Channel, done: int) -> None:
        if self._channel is not channel:
            raise ChannelClosed(f"the chain of partition {self._partition.number} has changed")
        self._partition.confirm(done)


def follow(channel: Channel, partition: Partition) -> None:
    """Do what the predecessor in a partition's chain does, until it is gone or another takes its place.

    Args:
        channel: To the predecessor; any thread may send on it.
        partition: The one that follows.

    Raises:
        ChannelClosed: It is.
    """
    with partition.lock:
        if partition.primary or not partition.member:
            # Who is no longer in the chain must confirm nothing; who is to come to it soon is asked again.
            raise ChannelClosed(f"partition {partition.number} does not follow another server's here")
        partition.source = channel

    def done(index: int) -> None:  # from this thread, or from that of our own follower
        try:
            channel.send(Header(Op.ACK, key_set=index))
        except ChannelClosed:
            pass  # read in our own loop

    while True:
        header = channel.receive()
        if header.op == Op.LOAD:
            described = channel.receive_json(header)
            arrays = [_receive(channel, *told) for table in described["tables"] for told in table["arrays"]]
            partition.load(channel, described, arrays, done)
        elif header.op == Op.DECLARE:
            spec = TableSpec.from_wire(channel.receive_json(header))
            partition.follow_declaration(channel, header.table, spec, done)
        elif header.op == Op.PUSH:
            shard = partition.shards.get(header.table)
            if shard is None:  # it was let go of while this was on its way
                raise ChannelClosed(f"partition {partition.number} is no longer here")
            keys = None if header.flags & WHOLE else channel.receive_array(header.keys, np.int64)
            partition.follow(channel, header, keys, receive_gradient(channel, header, shard, keys), done)
        else:
            partition.follow(channel, header, None, None, done)


def receive_gradient(
    channel: Channel, header: Header, shard: Shard, keys: Array | None, room: Array | None = None
) -> Array:
    """A push's gradient, whose keys (None: every row) have been read; see ``filters.receive``.

    Raises:
        RunError: Its length is not what its header says.
    """
    rows = shard.rows if keys is None else len(keys)
    sent = 0 if keys is None or header.flags & KNOWN_KEYS else keys.nbytes
    shape, dtype = (rows, *shard.spec.row_shape), np.dtype(shard.spec.dtype)
    return receive(channel, header.flags, header.length - sent, shape, dtype, room)


def _receive(channel: Channel, name: str, shape: list[int], dtype: str) -> Array:
    header = channel.receive()
    array = np.empty(shape, dtype)
    if header.op != Op.LOAD or header.length != array.nbytes:
        raise RunError(f"a copy's array {name!r} came as operation {header.op} of {header.length} bytes")
    channel.receive_into(array)
    return array
