"""The worker's side: what ``train(ps)`` is given. Not for several threads at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from paibook.comms.wire import Channel, ChannelClosed, Header, connect
from paibook.errors import TableError
from paibook.runtimes.ps.messages import GO_ON, WHOLE, Op
from paibook.runtimes.ps.shards import TableSpec, exceed, hash_texts, owners, row_ranges, split

MAX_UNANSWERED = 256  # acknowledgements that may pile up in the socket's buffer before we read them
_MASK = 0xFFFFFFFF


class ServerLink:
    """Requests to one server and its answers, which come in the order of the requests."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._asked = 0
        self._answered = 0
        self._refusal: str | None = None

    def ask(self, header: Header, *buffers: NDArray[Any] | bytes) -> int:
        """Send a request; returns its number."""
        if self._asked - self._answered >= MAX_UNANSWERED:
            self.answer(self._asked)
        self._asked += 1
        numbered = Header(
            header.op, header.flags, header.table, self._asked & _MASK, header.keys, header.clock, header.key_set
        )
        self._channel.send(numbered, *buffers)
        return self._asked

    def answer(self, number: int, into: NDArray[Any] | None = None) -> Header | None:
        """Read answers up to that of request ``number``; None when it was read before.

        Args:
            into: Where its payload goes.
        """
        header = None
        while self._answered < number:
            header = self._channel.receive()
            self._answered += 1
            if header.sequence != self._answered & _MASK:
                raise ChannelClosed("a server answered out of order")
            if header.op == Op.ERROR:
                self._refusal = str(self._channel.receive_json(header)["message"])
            elif self._answered == number and into is not None and header.length == into.nbytes:
                self._channel.receive_into(into)
            elif header.length:
                self._channel.skip(header.length)
                raise ChannelClosed("a server answered at an unexpected length")
        return header

    def take_refusal(self) -> str | None:
        """What the server refused since the last time it was asked for."""
        refusal, self._refusal = self._refusal, None
        return refusal

    def close(self) -> None:
        """End the connection."""
        self._channel.close()


@dataclass(frozen=True)
class Ticket:
    """A push on its way: (server, request number) for each server it went to."""

    requests: tuple[tuple[int, int], ...]


class ParameterServer:
    """The servers as one worker sees them.

    Attributes:
        rank: This worker's.
        world_size: Workers in the run.

    Args:
        take: Gives the watched metrics logged since it was last called; they go to server 0 with every clock.
    """

    def __init__(
        self,
        rank: int,
        world_size: int,
        links: Sequence[ServerLink],
        take: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        self.rank = rank
        self.world_size = world_size
        self._links = links
        self._take = take
        self._clock = 0
        self._goes_on = True
        self._tables: dict[str, Table] = {}

    @classmethod
    def connect(
        cls,
        rank: int,
        world_size: int,
        addresses: Sequence[tuple[str, int]],
        token: bytes,
        take: Callable[[], Mapping[str, float]] = dict,
    ) -> ParameterServer:
        """Join a run's servers as worker ``rank``.

        Raises:
            ChannelClosed, HandshakeError: A server cannot be reached, or is not of this run.
        """
        links: list[ServerLink] = []
        try:
            for address in addresses:
                links.append(ServerLink(connect(address, token)))
                links[-1].answer(links[-1].ask(Header(Op.JOIN), b'{"role": "worker", "rank": %d}' % rank))
        except BaseException:
            for link in links:
                link.close()
            raise
        return cls(rank, world_size, links, take)

    def table(
        self,
        name: str,
        shape: int | tuple[int, ...] | None = None,
        dtype: DTypeLike = "float32",
        optimizer: Any = None,
        init: Any = 0.0,
        sparse: bool = False,
        width: int | None = None,
        admit: Any = None,
        expire_after: int | None = None,
        max_rows: int | None = None,
        evict: str = "lru",
    ) -> Table:
        """Declare a table; every worker declares it alike.

        Args:
            name: Names it in messages and in the run's result.
            shape: Dense: (rows, ...); rows are cut into contiguous ranges over the servers.
            dtype: float16, bfloat16, float32, float64, int32 or int64.
            optimizer: ``pai.SGD(lr=0.1)``, ``pai.Adagrad(...)``, ``pai.FTRL(...)``, or None for the cell's ``update``.
            init: A number, ``pai.Normal(...)`` or ``pai.Uniform(...)``.
            sparse: Rows of ``width`` elements by int64 key (or text), made when first pushed; a pull of a key without
                a row gives what ``init`` would make.
            width: Sparse only; 1 by default. So are the next three:
            admit: Which pushed keys are given a row: ``pai.ByCount(3)``, ``pai.ByProbability(0.1)``, or None for all.
            expire_after: Rows that were not pushed for so many clocks are deleted.
            max_rows: Beyond so many rows, divided among the servers, some are deleted at the end of a push ...
            evict: ... ``"lru"``: those whose last push is longest ago.

        Raises:
            TableError: An argument that cannot be meant, or one other than in an earlier declaration.
        """
        life = (admit, expire_after, max_rows, evict)
        spec = TableSpec.declare(name, shape, width, sparse, dtype, optimizer, init, *life)
        payload = json.dumps(spec.to_wire()).encode()
        headers = self._ask_all([(Header(Op.DECLARE), (payload,))] * len(self._links))
        table = Table(self, spec, [0 if header is None else header.table for header in headers])
        return self._tables.setdefault(name, table)

    def clock(self) -> bool:
        """End this worker's iteration; returns True while training goes on."""
        self._clock += 1
        requests = self._end_of_clock(Op.CLOCK)
        numbers = [link.ask(header, *buffers) for link, (header, buffers) in zip(self._links, requests, strict=True)]
        # Server 0 decides; the others' answers are read with the next request that needs one.
        answer = self._links[0].answer(numbers[0])
        self._check()
        self._goes_on = self._goes_on and answer is not None and bool(answer.flags & GO_ON)
        return self._goes_on

    def clocks(self, n: int | None = None) -> Iterator[int]:
        """Iterate: 0, 1, 2, ... until the coordinator says stop, or ``n`` times; ends a clock after each turn."""
        turns = 0
        while self._goes_on and (n is None or turns < n):
            yield self._clock
            turns += 1
            self.clock()

    def wait(self, ticket: Ticket) -> None:
        """Block until the servers have taken a push in. Under BSP it is applied when its clock ends."""
        for server, number in ticket.requests:
            self._links[server].answer(number)
        self._check()

    def retire(self) -> None:
        """Tell the servers that this worker is done, so that nobody waits for it."""
        self._ask_all(self._end_of_clock(Op.RETIRE))

    def close(self) -> None:
        """End the connections."""
        for link in self._links:
            link.close()

    def _end_of_clock(self, op: Op) -> list[tuple[Header, tuple[Any, ...]]]:
        header = Header(op, clock=self._clock)
        metrics = self._take()
        first = (json.dumps(dict(metrics)).encode(),) if metrics else ()
        return [(header, first), *[(header, ())] * (len(self._links) - 1)]

    def _ask_all(self, requests: Sequence[tuple[Header, tuple[Any, ...]]]) -> list[Header | None]:
        numbers = [link.ask(header, *buffers) for link, (header, buffers) in zip(self._links, requests, strict=True)]
        headers = [link.answer(number) for link, number in zip(self._links, numbers, strict=True)]
        self._check()
        return headers

    def _check(self) -> None:
        refusals = [refusal for link in self._links if (refusal := link.take_refusal()) is not None]
        if refusals:
            raise TableError(refusals[0])


class Table:
    """A table on the servers.

    Attributes:
        name: As declared.
        shape: Of the whole when dense; (width,) when sparse.
        dtype: Of its elements.
        staleness: How many clocks the slowest worker was behind this one at the last pull (0 or less: none).
    """

    def __init__(self, ps: ParameterServer, spec: TableSpec, numbers: list[int]) -> None:
        self._ps = ps
        self._spec = spec
        self._numbers = numbers
        servers = len(numbers)
        self._ranges = [] if spec.sparse else row_ranges(spec.shape[0], servers)
        self._starts = np.array([r.start for r in self._ranges], np.int64)
        self.name, self.shape, self.dtype = spec.name, spec.shape, np.dtype(spec.dtype)
        self.staleness = 0

    def __repr__(self) -> str:
        kind = f"sparse, width={self.shape[0]}" if self._spec.sparse else f"shape={self.shape}"
        return f"<table {self.name!r} {kind}, {self.dtype}, {len(self._numbers)} servers>"

    def pull(self, keys: Any = None) -> NDArray[Any]:
        """Weights: all of a dense table, or the rows of ``keys`` (integers, shape (n,)) in their order.

        Raises:
            TableError: Keys that are no integers, or no rows of the table.
        """
        if keys is None:
            return self._pull_whole()
        rows = self._rows(keys)
        out = np.empty((len(rows), *self._spec.row_shape), self.dtype)
        asked = []
        for server, where, local in self._split(rows):
            header = Header(Op.PULL, 0, self._numbers[server], keys=len(local), clock=self._ps._clock)
            asked.append((server, where, len(local), self._ps._links[server].ask(header, local)))
        for server, where, count, number in asked:
            if isinstance(where, slice):
                self._receive(server, number, out)
            else:
                part = np.empty((count, *self._spec.row_shape), self.dtype)
                self._receive(server, number, part)
                out[where] = part
        self._ps._check()
        return out

    def push(self, *args: Any) -> Ticket:
        """Send gradients: ``push(grad)`` for a whole dense table, ``push(keys, grads)`` for rows; equal keys add up.

        Raises:
            TableError: A gradient of the wrong shape or dtype, or keys as in ``pull``.
        """
        if len(args) == 1:
            return self._push_whole(args[0])
        if len(args) != 2:
            raise TableError(f"table {self.name!r}: push takes (grad) or (keys, grads); got {len(args)} arguments")
        rows = self._rows(args[0])
        gradient = self._gradient(args[1], (len(rows), *self._spec.row_shape))
        requests = []
        for server, where, local in self._split(rows):
            header = Header(Op.PUSH, 0, self._numbers[server], keys=len(local), clock=self._ps._clock)
            requests.append((server, self._ps._links[server].ask(header, local, np.ascontiguousarray(gradient[where]))))
        return Ticket(tuple(requests))

    def wait(self, ticket: Ticket) -> None:
        """Block until the servers have taken a push in."""
        self._ps.wait(ticket)

    def _pull_whole(self) -> NDArray[Any]:
        self._needs_dense("pull() without keys")
        out = np.empty(self.shape, self.dtype)
        asked = []
        for server, rows in enumerate(self._ranges):
            header = Header(Op.PULL, WHOLE, self._numbers[server], clock=self._ps._clock)
            asked.append((server, rows, self._ps._links[server].ask(header)))
        for server, rows, number in asked:
            self._receive(server, number, out[rows.start : rows.stop])
        self._ps._check()
        return out

    def _push_whole(self, value: Any) -> Ticket:
        self._needs_dense("push(grad) without keys")
        gradient = self._gradient(value, self.shape)
        requests = []
        for server, rows in enumerate(self._ranges):
            header = Header(Op.PUSH, WHOLE, self._numbers[server], clock=self._ps._clock)
            requests.append((server, self._ps._links[server].ask(header, gradient[rows.start : rows.stop])))
        return Ticket(tuple(requests))

    def _receive(self, server: int, number: int, into: NDArray[Any]) -> None:
        header = self._ps._links[server].answer(number, into)
        if header is not None and header.op == Op.OK:
            self.staleness = self._ps._clock - header.clock

    def _split(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, Any, NDArray[np.int64]]]:
        """For each server concerned: positions in ``rows``, and the keys as that server counts them."""
        servers = len(self._numbers)
        if servers == 1:
            if len(rows):
                yield 0, slice(None), rows
            return
        if self._spec.sparse:
            owner = owners(rows, servers)
        else:
            # Rightmost start not above the row; empty ranges at the front share a start, hence "right".
            owner = np.searchsorted(self._starts, rows, side="right").astype(np.int64) - 1
        for server, where in split(owner, servers):
            local = rows[where] if self._spec.sparse else rows[where] - self._starts[server]
            yield server, where, local

    def _rows(self, keys: Any) -> NDArray[np.int64]:
        array = np.asarray(keys)
        if array.dtype.kind in "OUT" and self._spec.sparse:
            array = hash_texts(array)
        if array.size == 0:
            array = array.astype(np.int64)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise TableError(
                f"table {self.name!r}: keys must be integers in one dimension; got {array.dtype} of shape {array.shape}"
            )
        if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
            raise TableError(f"table {self.name!r}: keys must fit int64; got {array.max()}")
        rows = np.ascontiguousarray(array, np.int64)
        if not self._spec.sparse and exceed(rows, self.shape[0]):
            wrong = rows[(rows < 0) | (rows >= self.shape[0])][0]
            raise TableError(f"table {self.name!r} has rows 0 to {self.shape[0] - 1}; got row {wrong}")
        return rows

    def _gradient(self, value: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        array = np.asarray(value)
        if not np.can_cast(array.dtype, self.dtype, "same_kind") and not (
            self.dtype.name == "bfloat16" and array.dtype.kind == "f"  # no subtype of NumPy's floating
        ):
            raise TableError(f"table {self.name!r} holds {self.dtype}; got a gradient of {array.dtype}")
        if array.shape != shape and not (self.shape == (1,) and self._spec.sparse and array.shape == shape[:1]):
            raise TableError(f"table {self.name!r} expects a gradient of shape {shape}; got {array.shape}")
        return np.ascontiguousarray(array, self.dtype).reshape(shape)

    def _needs_dense(self, call: str) -> None:
        if self._spec.sparse:
            raise TableError(f"table {self.name!r} is sparse: {call} would mean every possible key; give the keys")
