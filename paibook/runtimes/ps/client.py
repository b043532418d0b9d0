"""The worker's side: what ``train(ps)`` is given. Not for several threads at once."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from paibook.comms.shared_channel import take_up
from paibook.comms.wire import Channel, ChannelClosed, Header, Security, connect
from paibook.errors import TableError
from paibook.runtimes.ps.consistency import Consistency, fresh_enough
from paibook.runtimes.ps.error_feedback import Filters, TopKFilter
from paibook.runtimes.ps.filters import buffer_for
from paibook.runtimes.ps.key_sets import SentKeys, Splits
from paibook.runtimes.ps.messages import GO_ON, WHOLE, Op
from paibook.runtimes.ps.pull_tickets import Answer, Prefetched, PullTicket
from paibook.runtimes.ps.shards import TableSpec, exceed, row_ranges
from paibook.runtimes.ps.staleness import StalenessRecord

MAX_UNANSWERED = 256  # acknowledgements that may pile up in the socket's buffer before we read them
MAX_DUE = 32 << 10  # bytes that surely fit a connection's buffers while nobody reads
ASP = Consistency("asp")
_MASK = 0xFFFFFFFF


@dataclass(eq=False)
class Request:
    """Something asked of a server.

    Attributes:
        number: Counts the requests to that server.
        into: Where the answer's payload goes.
        answer: The answer's header, once it has been read.
    """

    number: int
    into: NDArray[Any] | None = None
    answer: Header | None = None


class ServerLink:
    """Requests to one server and its answers, which come in the order of the requests."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._asked = 0
        self._open: deque[Request] = deque()  # not answered yet
        self._due = 0  # bytes of payload that those bring
        self._ahead = 0  # bytes sent while an answer with payload was open
        self._refusal: str | None = None
        self._keys = SentKeys()

    def ask(self, header: Header, *buffers: NDArray[Any] | bytes, into: NDArray[Any] | None = None) -> Request:
        """Send a request.

        Args:
            into: Where the payload of the answer goes.
        """
        header, buffers = self._keys.shorten(header, buffers)
        self._make_room(sum(b.nbytes if isinstance(b, np.ndarray) else len(b) for b in buffers))
        self._asked += 1
        request = Request(self._asked, into)
        self._open.append(request)
        self._due += 0 if into is None else into.nbytes
        self._channel.send(header._replace(sequence=self._asked & _MASK), *buffers)
        return request

    def answer(self, request: Request) -> Header:
        """Read answers up to that of ``request``."""
        while request.answer is None:
            self._read()
        return request.answer

    def take_refusal(self) -> str | None:
        """What the server refused since the last time it was asked for."""
        refusal, self._refusal = self._refusal, None
        return refusal

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def _make_room(self, size: int) -> None:
        """Read what is due where the server could not send it for not being read, nor read for sending."""
        if len(self._open) >= MAX_UNANSWERED or (self._due > MAX_DUE and self._ahead + size > MAX_DUE):
            self.answer(self._open[-1])
        self._ahead = self._ahead + size if self._due else 0

    def _read(self) -> None:
        request = self._open.popleft()
        header = self._channel.receive()
        if header.sequence != request.number & _MASK:
            raise ChannelClosed("a server answered out of order")
        expected = 0 if request.into is None else request.into.nbytes
        self._due -= expected
        if header.op == Op.ERROR:
            self._refusal = str(self._channel.receive_json(header)["message"])
        elif header.length != expected:
            raise ChannelClosed("a server answered at an unexpected length")
        elif request.into is not None:
            self._channel.receive_into(request.into)
        request.answer = header


@dataclass(frozen=True)
class Ticket:
    """A push on its way: (server, request) for each server it went to."""

    requests: tuple[tuple[int, Request], ...]


class ParameterServer:
    """The servers as one worker sees them.

    Attributes:
        rank: This worker's.
        world_size: Workers in the run.
        staleness: What its pulls have observed so far.

    Args:
        take: Gives the watched metrics logged since it was last called; they go to server 0 with every clock.
        consistency: The run's.
    """

    def __init__(
        self,
        rank: int,
        world_size: int,
        links: Sequence[ServerLink],
        take: Callable[[], Mapping[str, float]] = dict,
        consistency: Consistency = ASP,
    ) -> None:
        self.staleness = StalenessRecord(logs=not consistency.buffers)
        self.rank = rank
        self.world_size = world_size
        self._links = links
        self._take = take
        self._consistency = consistency
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
        consistency: Consistency = ASP,
        security: Security | None = None,
    ) -> ParameterServer:
        """Join a run's servers as worker ``rank``.

        Raises:
            ChannelClosed, HandshakeError: A server cannot be reached, or is not of this run.
        """
        links: list[ServerLink] = []
        try:
            for address in addresses:
                links.append(ServerLink(take_up(connect(address, token, security=security))))
                join = links[-1].ask(Header(Op.JOIN), b'{"role": "worker", "rank": %d}' % rank)
                links[-1].answer(join)
        except BaseException:
            for link in links:
                link.close()
            raise
        return cls(rank, world_size, links, take, consistency)

    def table(
        self,
        name: str,
        shape: int | tuple[int, ...] | None = None,
        dtype: DTypeLike = "float32",
        optimizer: Any = None,
        init: Any = 0.0,
        sparse: bool = False,
        width: int | None = None,
        compress: str | TopKFilter | None = None,
        compress_pulls: str | None = None,
    ) -> Table:
        """Declare a table; every worker declares it alike.

        Args:
            name: Names it in messages and in the run's result.
            shape: Dense: (rows, ...); rows are cut into contiguous ranges over the servers.
            dtype: float16, float32, float64, int32 or int64.
            optimizer: ``pai.SGD(lr=0.1)``, ``pai.Adagrad(...)``, ``pai.FTRL(...)``, or None for the cell's ``update``.
            init: A number, ``pai.Normal(...)`` or ``pai.Uniform(...)``.
            sparse: Rows of ``width`` elements by int64 key, made when first used.
            width: Sparse only; 1 by default.
            compress: What pushes carry: ``"fp16"``, ``"int8"``, ``"top-k"`` (the largest hundredth, with error
                feedback), ``pai.TopKFilter(ratio)``, or None: all as it is.
            compress_pulls: What pulls carry: ``"fp16"``, ``"int8"`` or None.

        Raises:
            TableError: An argument that cannot be meant, or one other than in an earlier declaration.
        """
        spec = TableSpec.declare(name, shape, width, sparse, dtype, optimizer, init)
        filters = Filters(name, compress, compress_pulls, np.dtype(spec.dtype), self.rank)
        payload = json.dumps(spec.to_wire()).encode()
        headers = self._ask_all([(Header(Op.DECLARE), (payload,))] * len(self._links))
        table = Table(self, spec, [header.table for header in headers], filters)
        return self._tables.setdefault(name, table)

    def clock(self) -> bool:
        """End this worker's iteration; returns True while training goes on."""
        self.staleness.end_clock(self._clock)
        self._clock += 1
        asked = self._ask_each(self._end_of_clock(Op.CLOCK))
        # Server 0 decides; the others' answers are read with the next request that needs one.
        answer = self._links[0].answer(asked[0])
        self._check()
        self._goes_on = self._goes_on and bool(answer.flags & GO_ON)
        return self._goes_on

    def clocks(self, n: int | None = None) -> Iterator[int]:
        """Iterate: 0, 1, 2, ... until the coordinator says stop, or ``n`` times; ends a clock after each turn."""
        turns = 0
        while self._goes_on and (n is None or turns < n):
            yield self._clock
            turns += 1
            self.clock()

    def wait(self, ticket: Ticket | PullTicket) -> None:
        """Block until the servers have taken a push in, or until what was prefetched is here.

        Under BSP a push is applied when its clock ends.
        """
        if isinstance(ticket, PullTicket):
            for part in ticket.parts:
                part.link.answer(part.request)
        else:
            for server, request in ticket.requests:
                self._links[server].answer(request)
        self._check()

    def retire(self) -> None:
        """Tell the servers that this worker is done, so that nobody waits for it."""
        self.staleness.end_clock(self._clock, last=True)
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

    def _ask_each(self, requests: Sequence[tuple[Header, tuple[Any, ...]]]) -> list[Request]:
        return [link.ask(header, *buffers) for link, (header, buffers) in zip(self._links, requests, strict=True)]

    def _ask_all(self, requests: Sequence[tuple[Header, tuple[Any, ...]]]) -> list[Header]:
        asked = self._ask_each(requests)
        headers = [link.answer(request) for link, request in zip(self._links, asked, strict=True)]
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
        staleness: Clocks by which the slowest worker was behind this one at the last pull (0 or less: none); the most
            over the servers asked.
    """

    def __init__(self, ps: ParameterServer, spec: TableSpec, numbers: list[int], filters: Filters) -> None:
        self._filters = filters
        self._ps = ps
        self._spec = spec
        self._numbers = numbers
        servers = len(numbers)
        self._ranges = [] if spec.sparse else row_ranges(spec.shape[0], servers)
        starts = None if spec.sparse else np.array([r.start for r in self._ranges], np.int64)
        self._splits = Splits(starts, servers)
        self._prefetched = Prefetched()
        self.name, self.shape, self.dtype = spec.name, spec.shape, np.dtype(spec.dtype)
        self.staleness = 0

    def __repr__(self) -> str:
        kind = f"sparse, width={self.shape[0]}" if self._spec.sparse else f"shape={self.shape}"
        return f"<table {self.name!r} {kind}, {self.dtype}, {len(self._numbers)} servers>"

    def pull(self, keys: Any = None) -> NDArray[Any]:
        """Weights: all of a dense table, or the rows of ``keys`` (integers, shape (n,)) in their order.

        What ``prefetch`` has asked for is used, once, unless it is too stale by now.

        Raises:
            TableError: Keys that are no integers, or no rows of the table.
        """
        rows = None if keys is None else self._rows(keys)
        return self._finish(self._prefetched.take(rows) or self._ask(rows))

    def prefetch(self, keys: Any = None) -> PullTicket:
        """Ask for what a later ``pull`` of the same keys, or ``result()`` of the ticket, will need; does not wait.

        It counts as a pull made now: it sees nothing that this worker pushes later, and when it is used in a later
        clock than the consistency model allows for what it has seen, it is pulled again. So under BSP it helps within
        a clock, under SSP while the others are at most ``staleness`` clocks behind the clock it is used in, and under
        ASP always.

        Raises:
            TableError: As ``pull``.
        """
        ticket = self._ask(None if keys is None else self._rows(keys).copy())
        self._prefetched.add(ticket)
        return ticket

    def push_pull(self, keys: Any, grads: Any) -> NDArray[Any]:
        """``push(keys, grads)``, then ``pull(keys)``, in one round trip in which the keys travel once.

        The weights include this push; under BSP, as ever, only what was pushed in earlier clocks.

        Raises:
            TableError: As ``push`` and ``pull``.
        """
        rows = self._rows(keys)
        self.push(rows, grads)
        return self._finish(self._ask(rows))

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
        rows, gradient = self._filters.choose(rows, gradient)
        requests = []
        for server, where, local in self._splits.of(rows):
            flag, sent = self._filters.rows(np.ascontiguousarray(gradient[where]))
            header = Header(Op.PUSH, flag, self._numbers[server], keys=len(local), clock=self._ps._clock)
            requests.append((server, self._ps._links[server].ask(header, local, *sent)))
        return Ticket(tuple(requests))

    def wait(self, ticket: Ticket | PullTicket) -> None:
        """As ``ParameterServer.wait``."""
        self._ps.wait(ticket)

    def _ask(self, rows: NDArray[np.int64] | None) -> PullTicket:
        parts: list[Answer] = []
        if rows is None:
            self._needs_dense("pull() without keys")
            out = np.empty(self.shape, self.dtype)
            for server, part in enumerate(self._ranges):
                header = Header(Op.PULL, WHOLE, self._numbers[server], clock=self._ps._clock)
                parts.append(self._ask_server(server, out, slice(part.start, part.stop), header))
        else:
            out = np.empty((len(rows), *self._spec.row_shape), self.dtype)
            for server, where, local in self._splits.of(rows):
                header = Header(Op.PULL, 0, self._numbers[server], keys=len(local), clock=self._ps._clock)
                parts.append(self._ask_server(server, out, where, header, local))
        return PullTicket(rows, parts, out, self._finish)

    def _ask_server(self, server: int, out: NDArray[Any], where: Any, header: Header, *keys: Any) -> Answer:
        flag, link = self._filters.pull, self._ps._links[server]
        if isinstance(where, slice) and not flag:
            return Answer(link, link.ask(header, *keys, into=out[where]), None, 0, 0)
        rows = where.stop - where.start if header.flags & WHOLE else header.keys
        into = buffer_for(flag, (rows, *self._spec.row_shape), self.dtype)
        request = link.ask(header._replace(flags=header.flags | flag), *keys, into=into)
        return Answer(link, request, where, rows, flag)

    def _finish(self, ticket: PullTicket) -> NDArray[Any]:
        self._prefetched.forget(ticket)
        clock = self._ps._clock
        self._ps.wait(ticket)
        answers = [part.request.answer for part in ticket.parts if part.request.answer is not None]
        seen = min((answer.clock for answer in answers), default=clock)
        if not fresh_enough(self._ps._consistency, seen, clock):
            return self._finish(self._ask(ticket.rows))
        self.staleness = clock - seen
        if answers:
            self._ps.staleness.observe(self.name, self.staleness)
        return ticket.gather()

    def _push_whole(self, value: Any) -> Ticket:
        self._needs_dense("push(grad) without keys")
        gradient = self._gradient(value, self.shape)
        requests = []
        for server, rows in enumerate(self._ranges):
            flag, sent = self._filters.whole(server, gradient[rows.start : rows.stop])
            header = Header(Op.PUSH, WHOLE | flag, self._numbers[server], clock=self._ps._clock)
            requests.append((server, self._ps._links[server].ask(header, *sent)))
        return Ticket(tuple(requests))

    def _rows(self, keys: Any) -> NDArray[np.int64]:
        array = np.asarray(keys)
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
        if not np.can_cast(array.dtype, self.dtype, "same_kind"):
            raise TableError(f"table {self.name!r} holds {self.dtype}; got a gradient of {array.dtype}")
        if array.shape != shape and not (self.shape == (1,) and self._spec.sparse and array.shape == shape[:1]):
            raise TableError(f"table {self.name!r} expects a gradient of shape {shape}; got {array.shape}")
        return np.ascontiguousarray(array, self.dtype).reshape(shape)

    def _needs_dense(self, call: str) -> None:
        if self._spec.sparse:
            raise TableError(f"table {self.name!r} is sparse: {call} would mean every possible key; give the keys")
