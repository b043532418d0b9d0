"""One partition of every table on one server: what is done to it, in an order that its whole chain shares.

What changes a partition is an operation: declaring a table, a push, the end of a clock, a worker's new process. The
primary gives them an order, and each server of the chain does them in it, so that all hold the same. A push is known by
its worker, that worker's incarnation and a sequence number, and is done once however often it is sent.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from paibook.comms.wire import ChannelClosed, Header
from paibook.errors import RunError, TableError
from paibook.runtimes.ps.messages import MASK, WHOLE, Op
from paibook.runtimes.ps.shards import TableSpec

if TYPE_CHECKING:
    from paibook.runtimes.ps.tables import Shard

Array = NDArray[Any]
Then = Callable[[int], None]  # called with the number of an operation that the whole chain has done


class Follower(Protocol):
    """The next server of the chain, as a partition sees it; all are called with the partition locked."""

    def forward(self, header: Header, *buffers: Array | bytes) -> None:
        """Pass an operation on, in order."""

    def restart(self) -> None:
        """Give it a copy of all, once more."""

    def close(self) -> None:
        """Forget it."""


class Partition:
    """A partition's shards and the order of what is done to them; ``lock`` guards all of it.

    Args:
        number: Which partition.
        make: Makes a table's shard.
        buffers: Whether pushes wait for the end of their clock.
        clock: At which the run begins.
        restore: Fills a table's shard when it is declared, where the run goes on from a checkpoint.
    """

    def __init__(
        self,
        number: int,
        make: Callable[[TableSpec, int], Shard],
        buffers: bool,
        clock: int = 0,
        restore: Callable[[Shard, Partition], None] | None = None,
    ) -> None:
        self.number = number
        self.lock = threading.RLock()
        self.shards: dict[int, Shard] = {}
        self.settled: set[int] = set()  # tables that the whole chain has
        self.primary = False
        self.index = 0  # operations done
        self.applied = clock  # clocks whose pushes have been applied
        self.required = False  # whether an operation counts once the follower has it
        self.member = False  # whether this server is in the partition's chain
        self.source: object | None = None  # the connection that operations come from, on a backup
        self._make = make
        self._restore = restore
        self._buffers = buffers
        self._last: dict[int, tuple[int, int]] = {}  # by rank: incarnation, sequence number
        self._follower: Follower | None = None
        # Of its own: who hears the follower must not wait for who is sending to it.
        self._confirming = threading.Lock()
        self._confirmed = 0
        self._unconfirmed: deque[tuple[int, Then]] = deque()

    # What the primary is asked to do. ``then`` is called once every server of the chain has done it.

    def declare(self, number: int, spec: TableSpec, then: Then) -> None:
        """Make a table's shard; does nothing where it is there.

        Raises:
            TableError: It cannot be made.
            ChannelClosed: Another server answers for the partition by now.
        """
        with self.lock:
            self._check_primary()
            settle, index = self._declared(number, spec, then)
        if index is not None:
            settle(index)

    def _declared(self, number: int, spec: TableSpec, then: Then) -> tuple[Then, int | None]:
        def settle(index: int) -> None:
            self.settled.add(number)
            then(index)

        if number not in self.shards:
            self._add(number, spec)
            self._log(Header(Op.DECLARE, table=number), json.dumps(spec.to_wire()).encode())
        return settle, self._counts(settle)

    def push(
        self,
        number: int,
        worker: tuple[int, int],
        header: Header,
        keys: Array | None,
        gradient: Array,
        then: Then,
        skipped: int = 0,
    ) -> None:
        """Do a worker's push, unless it was done before.

        Args:
            number: The table's.
            worker: Its rank and incarnation.
            header: The push's: its clock and sequence number.
            keys: int64, or None for the whole shard.
            gradient: One row for each; owned from now on.
            then: As above.
            skipped: Rows that were left out of it.

        Raises:
            TableError: The table refuses it.
            ChannelClosed: Another server answers for the partition by now, and the worker will ask that one.
        """
        rank, incarnation = worker
        with self.lock:
            self._check_primary()
            if incarnation > self._last.get(rank, (0, 0))[0]:
                raise RunError(f"worker rank {rank} pushed before it said at which clock it begins")
            if self._fresh(rank, incarnation, header.sequence):
                if skipped:
                    self._log(Header(Op.SKIP, table=number, keys=skipped))
                    self.shards[number].skip(skipped)
                identity = rank << 32 | incarnation
                count = 0 if keys is None else len(keys)
                told = Header(Op.PUSH, header.flags & WHOLE, number, header.sequence, count, header.clock, identity)
                # Passed on first: the follower does it meanwhile, and what `update` does to a gradient is its own.
                self._log(told, *(() if keys is None else (keys,)), gradient)
                self._push(told, keys, gradient)
            index = self._counts(then)
        if index is not None:
            then(index)

    def apply_until(self, clock: int) -> None:
        """Make the waiting pushes of every clock before ``clock`` visible."""
        if not self._buffers:
            return
        with self.lock:
            while self.applied < clock and self.primary:
                if not any(shard.waits for shard in self.shards.values()):
                    skipped = clock - 1  # nothing waits, so one operation says it for all
                else:
                    skipped = self.applied
                self._log(Header(Op.APPLY, clock=skipped))
                self._apply(skipped)

    def renew(self, rank: int, incarnation: int, clock: int) -> None:
        """A worker's rank has a new process, which begins at ``clock``: what waits of the old one's is dropped."""
        with self.lock:
            if self.primary and incarnation > self._last.get(rank, (0, 0))[0]:
                self._log(Header(Op.RENEW, clock=clock, key_set=rank << 32 | incarnation))
                self._renew(rank, incarnation, clock)

    # What a backup is told along the chain, by the connection that is its ``source``.

    def follow(self, source: object, header: Header, keys: Array | None, gradient: Array | None, then: Then) -> None:
        """Do the next operation, other than declaring a table, as the predecessor in the chain did it.

        Args:
            source: The connection that it came by.
            header, keys, gradient: As the predecessor passed them on.
            then: As above; of a push it is called once the chain has it, with the partition locked, and must not wait.

        Raises:
            ChannelClosed: Operations come from elsewhere by now, or from nowhere.
        """
        with self.lock:
            self._check_source(source)
            if header.op == Op.PUSH:
                assert gradient is not None
                self._log(header, *(() if keys is None else (keys,)), gradient)
                # Said before it is done: it is here now, and nobody sees this partition until it is done.
                index = self._counts(then)
                if index is not None:
                    then(index)
                try:
                    self._push(header, keys, gradient)
                except TableError:
                    pass  # as the primary did, which has told the worker
                return
            if header.op == Op.SKIP:
                self._log(header)
                self.shards[header.table].skip(header.keys)
            elif header.op == Op.APPLY:
                self._log(header)
                self._apply(header.clock)
            elif header.op == Op.RENEW:
                self._log(header)
                self._renew(header.key_set >> 32, header.key_set & MASK, header.clock)
            else:
                raise RunError(f"operation {header.op} came along the chain of partition {self.number}")
            index = self._counts(then)
        if index is not None:
            then(index)

    def follow_declaration(self, source: object, number: int, spec: TableSpec, then: Then) -> None:
        """As ``follow``, for a table."""
        with self.lock:
            self._check_source(source)
            settle, index = self._declared(number, spec, then)
        if index is not None:
            settle(index)

    def _check_source(self, source: object) -> None:
        if self.source is not source or self.primary:
            raise ChannelClosed(f"partition {self.number} is told what to do by another server")

    def _check_primary(self) -> None:
        # It was when the request began; large ones take a while to come in.
        if not self.primary:
            raise ChannelClosed(f"another server answers for partition {self.number} by now")

    def step_down(self) -> None:
        """Answer no more, for another is to be the primary. What waits to be confirmed is that one's to confirm."""
        with self.lock:
            self.primary = False
            with self._confirming:
                self._unconfirmed.clear()

    # Copies of the whole.

    def snapshot(self) -> tuple[dict[str, Any], list[Array]]:
        """All of it: a JSON-able description, and the arrays in its order; copies. Call it locked."""
        tables: list[dict[str, Any]] = []
        arrays: list[Array] = []
        for number, shard in self.shards.items():
            found = shard.dump()
            shapes = [[name, list(array.shape), array.dtype.name] for name, array in found.items()]
            tables.append({"number": number, "spec": shard.spec.to_wire(), "arrays": shapes})
            arrays.extend(found.values())
        last = [[rank, *known] for rank, known in self._last.items()]
        return {"index": self.index, "applied": self.applied, "last": last, "tables": tables}, arrays

    def load(self, source: object, described: Mapping[str, Any], arrays: list[Array], then: Then) -> None:
        """Become a copy of another server's partition, and hand it on to whoever follows."""
        rest = iter(arrays)
        with self.lock:
            self._check_source(source)
            self._let_go()  # first: there is not room for what it has and for what it is given
            shards = {}
            for table in described["tables"]:
                shard = self._make(TableSpec.from_wire(table["spec"]), self.number)
                shard.load({name: next(rest) for name, _, _ in table["arrays"]})
                shards[int(table["number"])] = shard
            self.shards, self.settled = shards, set(shards)  # whoever follows is given all of them with its copy
            self.index, self.applied = described["index"], described["applied"]
            self._last = {rank: (incarnation, sequence) for rank, incarnation, sequence in described["last"]}
            with self._confirming:
                self._confirmed = 0
                self._unconfirmed.clear()
            if self._follower is not None:
                self._follower.restart()
            index = self._counts(then)
        if index is not None:
            then(index)

    def clear(self) -> None:
        """Let go of it: others hold it. What waits to be confirmed is theirs to confirm, and no longer ours."""
        with self.lock:
            self._let_go()
            self.source = None
            with self._confirming:
                self._unconfirmed.clear()

    def _let_go(self) -> None:
        for shard in self.shards.values():
            shard.close()
        self.shards, self.settled = {}, set()

    # The chain after this server.

    def attach(self, follower: Follower | None, required: bool) -> None:
        """Change who follows; without one, what was done counts at once."""
        with self.lock:
            if self._follower is not None:
                self._follower.close()
            self._follower, self.required = follower, follower is not None and required
        if follower is None:
            self.confirm(self.index)

    def require(self) -> None:
        """From now on an operation counts only once the follower has it."""
        with self.lock:
            self.required = True

    def confirm(self, index: int) -> None:
        """The follower has done every operation up to ``index``."""
        ready = []
        with self._confirming:
            self._confirmed = max(self._confirmed, index)
            while self._unconfirmed and self._unconfirmed[0][0] <= index:
                ready.append(self._unconfirmed.popleft())
        for done, then in ready:
            then(done)

    def _counts(self, then: Then) -> int | None:
        """The number of the last operation where it counts already; else ``then`` is called once it does."""
        with self._confirming:
            if not self.required or self._confirmed >= self.index:
                return self.index
            self._unconfirmed.append((self.index, then))
            return None

    def _log(self, header: Header, *buffers: Array | bytes) -> None:
        self.index += 1
        if self._follower is not None:
            self._follower.forward(header, *buffers)

    def _add(self, number: int, spec: TableSpec) -> None:
        try:
            shard = self._make(spec, self.number)
            if self._restore is not None:
                self._restore(shard, self)
        except TableError as error:
            raise TableError(f"table {spec.name!r}: {error}") from error
        self.shards[number] = shard

    def _fresh(self, rank: int, incarnation: int, sequence: int) -> bool:
        """Whether a push is new: of the rank's present process, and later than its last. Numbers wrap (RFC 1982)."""
        known, last = self._last.get(rank, (0, 0))
        return incarnation == known and 0 < (sequence - last) & MASK < 1 << 31

    def _push(self, header: Header, keys: Array | None, gradient: Array) -> None:
        rank, incarnation = header.key_set >> 32, header.key_set & MASK
        self._last[rank] = (incarnation, header.sequence)
        shard = self.shards[header.table]
        if not self._buffers:
            shard.apply(keys, gradient, header.clock)
        elif header.clock < self.applied:
            raise RunError(f"worker rank {rank} pushed for clock {header.clock}, which is over")
        else:
            shard.keep(header.clock, rank, keys, gradient)

    def _apply(self, clock: int) -> None:
        for shard in self.shards.values():
            for waiting in range(self.applied, clock + 1) if shard.waits else ():
                shard.apply_kept(waiting)
        self.applied = clock + 1

    def _renew(self, rank: int, incarnation: int, clock: int) -> None:
        self._last[rank] = (incarnation, 0)
        for shard in self.shards.values():
            shard.forget(rank, clock)
