"""A table as the worker sees it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paibook.comms.wire import Header
from paibook.errors import TableError
from paibook.runtimes.ps.consistency import Consistency, fresh_enough
from paibook.runtimes.ps.error_feedback import Filters
from paibook.runtimes.ps.filters import buffer_for
from paibook.runtimes.ps.key_sets import Splits
from paibook.runtimes.ps.links import Links
from paibook.runtimes.ps.messages import WHOLE, Op
from paibook.runtimes.ps.one_at_a_time import one_at_a_time
from paibook.runtimes.ps.pull_tickets import Answer, Prefetched, PullTicket
from paibook.runtimes.ps.server_link import Request
from paibook.runtimes.ps.shards import TableSpec, exceed, hash_texts, row_ranges
from paibook.runtimes.ps.staleness import StalenessRecord


@dataclass(frozen=True)
class Ticket:
    """A push on its way: (partition, its number there) for each partition it went to."""

    pushes: tuple[tuple[int, int], ...]

    def wait(self, links: Links) -> None:
        """Block until it is on its servers, and on those that hold their copies.

        Raises:
            TableError: A server refused it.
        """
        links.wait_for(self.pushes)
        links.check()


class Table:
    """A table on the servers. Threads take turns.

    Attributes:
        name: As declared.
        shape: Of the whole when dense; (width,) when sparse.
        dtype: Of its elements.
        staleness: Clocks by which the slowest worker was behind this one at the last pull (0 or less: none); the most
            over the servers asked.
        turn: That of the ``ParameterServer``, held while a thread uses its connections.
    """

    def __init__(
        self,
        links: Links,
        spec: TableSpec,
        number: int,
        filters: Filters,
        consistency: Consistency,
        record: StalenessRecord,
        turn: threading.RLock,
    ) -> None:
        self.turn = turn
        self._links = links
        self._spec = spec
        self._filters = filters
        self._consistency = consistency
        self._record = record
        self._first_shard = number * links.partitions
        self._ranges = [] if spec.sparse else row_ranges(spec.shape[0], links.partitions)
        starts = None if spec.sparse else np.array([r.start for r in self._ranges], np.int64)
        self._splits = Splits(starts, links.partitions)
        self._prefetched = Prefetched()
        self.name, self.shape, self.dtype = spec.name, spec.shape, np.dtype(spec.dtype)
        self.staleness = 0

    def __repr__(self) -> str:
        kind = f"sparse, width={self.shape[0]}" if self._spec.sparse else f"shape={self.shape}"
        return f"<table {self.name!r} {kind}, {self.dtype}, {self._links.partitions} partitions>"

    def check_filters(self, filters: Filters) -> None:
        """Refuse another declaration's filters.

        Raises:
            TableError: They are not this table's.
        """
        if filters.asked != self._filters.asked:
            raise TableError(
                f"table {self.name!r} was declared before, and differently: now {filters} instead of {self._filters}"
            )

    @one_at_a_time
    def pull(self, keys: Any = None, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Weights: all of a dense table, or the rows of ``keys`` (integers, shape (n,)) in their order.

        What ``prefetch`` has asked for is used, once, unless it is too stale by now.

        Args:
            keys: None for all of a dense table.
            out: Where they go, and what is returned: C-contiguous, of their shape and the table's dtype; None for a
                new array. For a large table, to use one again saves the time that fresh memory takes.

        Raises:
            TableError: Keys that are no integers, or no rows of the table; an ``out`` that cannot hold the weights.
        """
        rows = None if keys is None else self._rows(keys)
        if rows is None:
            self._needs_dense("pull() without keys")
        if out is not None:
            self._check_out(out, self.shape if rows is None else (len(rows), *self._spec.row_shape))
        prefetched = self._prefetched.take(rows)
        if prefetched is None:
            return self._finish(self._ask(rows, out), out)
        found = self._finish(prefetched)
        if out is None:
            return found
        out[...] = found
        return out

    @one_at_a_time
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

    @one_at_a_time
    def push_pull(self, keys: Any, grads: Any) -> NDArray[Any]:
        """``push(keys, grads)``, then ``pull(keys)``, in one round trip in which the keys travel once.

        The weights include this push; under BSP, as ever, only what was pushed in earlier clocks.

        Raises:
            TableError: As ``push`` and ``pull``.
        """
        rows = self._rows(keys)
        self.push(rows, grads)
        return self._finish(self._ask(rows))

    @one_at_a_time
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
        pushes = []
        for partition, where, local in self._splits.of(rows):
            part = gradient if isinstance(where, slice) else gradient.take(where, axis=0)  # faster than by index
            flag, sent = self._filters.rows(part)
            header = Header(Op.PUSH, flag, self._first_shard + partition, keys=len(local), clock=self._links.clock)
            shared = not flag and isinstance(where, slice)
            pushes.append((partition, self._links.push(partition, header, (local, *sent), shared)))
        return Ticket(tuple(pushes))

    @one_at_a_time
    def wait(self, ticket: Ticket | PullTicket) -> None:
        """As ``ParameterServer.wait``."""
        ticket.wait(self._links)

    def _ask(self, rows: NDArray[np.int64] | None, out: NDArray[Any] | None = None) -> PullTicket:
        parts: list[Answer] = []
        if rows is None:
            self._needs_dense("pull() without keys")
            out = np.empty(self.shape, self.dtype) if out is None else out
            for partition, part in enumerate(self._ranges):
                header = Header(Op.PULL, WHOLE, self._first_shard + partition, clock=self._links.clock)
                parts.append(self._part(partition, out, slice(part.start, part.stop), header))
        else:
            out = np.empty((len(rows), *self._spec.row_shape), self.dtype) if out is None else out
            for partition, where, local in self._splits.of(rows):
                header = Header(Op.PULL, 0, self._first_shard + partition, keys=len(local), clock=self._links.clock)
                parts.append(self._part(partition, out, where, header, local))
        self._links.ask(part.request for part in parts)
        return PullTicket(rows, parts, out, self._finish)

    def _part(self, partition: int, out: NDArray[Any], where: Any, header: Header, *keys: Any) -> Answer:
        """What one partition is asked, and where its answer goes."""
        flag = self._filters.pull
        if isinstance(where, slice) and not flag:
            return Answer(Request(header, keys, partition, out[where]), None, 0, 0)
        rows = header.keys if keys else where.stop - where.start
        into = buffer_for(flag, (rows, *self._spec.row_shape), self.dtype)
        request = Request(header._replace(flags=header.flags | flag), keys, partition, into)
        return Answer(request, where, rows, flag)

    @one_at_a_time
    def _finish(self, ticket: PullTicket, out: NDArray[Any] | None = None) -> NDArray[Any]:
        self._prefetched.forget(ticket)
        clock = self._links.clock
        ticket.wait(self._links)
        answers = [part.request.answer for part in ticket.parts if part.request.answer is not None]
        seen = min((answer.clock for answer in answers), default=clock)
        if not fresh_enough(self._consistency, seen, clock):
            return self._finish(self._ask(ticket.rows, out), out)
        self.staleness = clock - seen
        if answers:
            self._record.observe(self.name, self.staleness)
        return ticket.gather()

    def _push_whole(self, value: Any) -> Ticket:
        self._needs_dense("push(grad) without keys")
        gradient = self._gradient(value, self.shape)
        pushes = []
        for partition, rows in enumerate(self._ranges):
            flag, sent = self._filters.whole(partition, gradient[rows.start : rows.stop])
            header = Header(Op.PUSH, WHOLE | flag, self._first_shard + partition, clock=self._links.clock)
            pushes.append((partition, self._links.push(partition, header, tuple(sent), shared=not flag)))
        return Ticket(tuple(pushes))

    def _rows(self, keys: Any) -> NDArray[np.int64]:
        array = np.asarray(keys)
        if array.dtype.kind == "U" and isinstance(keys, (list, tuple)):
            array = np.asarray(keys, object)  # where texts and numbers are mixed, NumPy has made texts of both
        if array.dtype.kind in "OUT" and self._spec.sparse:
            array = hash_texts(array)
        if array.size == 0:
            array = array.astype(np.int64)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            wanted = "integers, or texts," if self._spec.sparse else "integers"
            got = (
                " and ".join(sorted({type(key).__name__ for key in array.flat}))
                if array.dtype == object
                else array.dtype
            )
            raise TableError(
                f"table {self.name!r}: keys must be {wanted} in one dimension; got {got} of shape {array.shape}"
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
        try:
            with np.errstate(over="raise"):
                return np.ascontiguousarray(array, self.dtype).reshape(shape)
        except FloatingPointError:
            most = np.abs(array[np.isfinite(array)]).max()
            raise TableError(
                f"table {self.name!r}: a gradient of {most:.4g} does not fit {self.dtype}; scale gradients, or give "
                "the table another dtype"
            ) from None

    def _check_out(self, out: Any, shape: tuple[int, ...]) -> None:
        """Refuse what pulled weights cannot go into.

        Raises:
            TableError: It is that.
        """
        if not isinstance(out, np.ndarray):
            raise TableError(f"table {self.name!r}: out= takes a NumPy array; got {type(out).__name__}")
        if out.shape != shape or out.dtype != self.dtype:
            raise TableError(
                f"table {self.name!r}: these weights are {self.dtype} of shape {shape}; out= is {out.dtype} of shape "
                f"{out.shape}"
            )
        if not out.flags.c_contiguous or not out.flags.writeable:
            raise TableError(f"table {self.name!r}: out= must be C-contiguous and writable; give it a plain array")

    def _needs_dense(self, call: str) -> None:
        if self._spec.sparse:
            raise TableError(f"table {self.name!r} is sparse: {call} would mean every possible key; give the keys")
