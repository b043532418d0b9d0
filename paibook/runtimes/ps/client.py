"""The worker's side: what ``train(ps)`` is given. Threads of the worker take turns."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from paibook.comms.wire import Header
from paibook.errors import PlanError
from paibook.runtimes.ps.coordinator_link import CoordinatorLink
from paibook.runtimes.ps.error_feedback import Filters, TopKFilter
from paibook.runtimes.ps.links import Links
from paibook.runtimes.ps.messages import Op, WorkerJob
from paibook.runtimes.ps.one_at_a_time import one_at_a_time
from paibook.runtimes.ps.pull_tickets import PullTicket
from paibook.runtimes.ps.server_link import Request
from paibook.runtimes.ps.shards import TableSpec
from paibook.runtimes.ps.staleness import StalenessRecord
from paibook.runtimes.ps.table import Table, Ticket

T = TypeVar("T")


class ParameterServer:
    """The servers as one worker sees them.

    Args:
        job: The worker's.
        rank: The worker's.
        take: Gives the watched metrics logged since it was last called; they go to the coordinator with every clock.

    Attributes:
        rank: This worker's.
        world_size: Workers in the run.
        staleness: What its pulls have observed so far.
        turn: Held by the thread that uses the connections.

    Raises:
        ChannelClosed, HandshakeError: A server or the coordinator cannot be reached, or is not of this run.
    """

    def __init__(self, job: WorkerJob, rank: int, take: Callable[[], Mapping[str, float]] = dict) -> None:
        scene = job.scene
        self.turn = threading.RLock()
        self.rank = rank
        self.world_size = scene.world_size
        self.staleness = StalenessRecord(logs=not scene.consistency.buffers)
        self._consistency = scene.consistency
        security = scene.certificate
        self._coordinator = CoordinatorLink(job.coordinator, scene.token, rank, job.incarnation, take, security)
        try:
            self._links = Links(self._coordinator, scene.token, scene.replicas, security)
        except BaseException:
            self._coordinator.close()
            raise
        self._coordinator.clock = self._links.base
        self._waits = scene.consistency.buffers and job.decides
        self._goes_on = not self._links.retired
        self._behind = self._links.base  # clocks of an earlier process of this rank, or of an earlier run
        self._calls = 0
        self._tables: dict[str, Table] = {}

    @one_at_a_time
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
        compress: str | TopKFilter | None = None,
        compress_pulls: str | None = None,
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
            compress: What pushes carry: ``"fp16"``, ``"int8"``, ``"top-k"`` (the largest hundredth, with error
                feedback), ``pai.TopKFilter(ratio)``, or None: all as it is.
            compress_pulls: What pulls carry: ``"fp16"``, ``"int8"`` or None.

        Raises:
            TableError: An argument that cannot be meant, or one other than in an earlier declaration.
        """
        life = (admit, expire_after, max_rows, evict)
        spec = TableSpec.declare(name, shape, width, sparse, dtype, optimizer, init, *life)
        filters = Filters(name, compress, compress_pulls, np.dtype(spec.dtype), self.rank)
        if name in self._tables:
            self._tables[name].check_filters(filters)
        wire = spec.to_wire()
        number = self._coordinator.declare(wire)
        payload, partitions = json.dumps(wire).encode(), self._links.partitions
        headers = [Header(Op.DECLARE, table=number * partitions + p) for p in range(partitions)]
        asked = [Request(header, (payload,), p) for p, header in enumerate(headers)]
        self._links.ask(asked)
        self._links.wait_for_answers(asked)
        self._links.check()
        table = Table(self._links, spec, number, filters, self._consistency, self.staleness, self.turn)
        return self._tables.setdefault(name, table)

    @one_at_a_time
    def clock(self) -> bool:
        """End this worker's iteration; returns True while training goes on."""
        # Whoever hears that this clock is over may count on its pushes, also where this worker dies now.
        self._links.flush()
        self._links.check()
        self.staleness.end_clock(self._links.clock)
        clock = self._links.clock + 1
        self._links.tick(clock)
        goes_on, view = self._coordinator.tick(clock, self._waits)
        self._links.refresh(view)
        self._goes_on = self._goes_on and goes_on
        return self._goes_on

    def clocks(self, n: int | None = None) -> Iterator[int]:
        """Iterate: 0, 1, 2, ... until the coordinator says stop, or ``n`` times; ends a clock after each turn.

        In a worker that took the place of a dead one, and in a run that goes on from a checkpoint, it starts at the
        present clock: turns that were taken before are not taken again.
        """
        turns = 0 if n is None else min(n, self._behind)
        self._behind -= turns if n is not None else self._behind
        while self._goes_on and (n is None or turns < n):
            yield self._links.clock
            turns += 1
            self.clock()

    def shards(self, work: int | Sequence[T]) -> Iterator[int | T]:
        """Iterate over data shards that the coordinator hands out: each is some worker's, and done once.

        All workers make the same calls, one for each pass over the data. A turn ends with a clock. What a worker that
        dies has not finished is given to another.

        Args:
            work: The data shards, equal on all workers, or how many there are.

        Raises:
            PlanError: Neither.
            TableError: Another worker made the call with another number of them.
        """
        if isinstance(work, bool) or not isinstance(work, (int, Sequence)):
            raise PlanError(f"ps.shards takes a list of data shards, or how many there are; got {work!r}")
        items: Sequence[Any] = range(work) if isinstance(work, int) else work
        call, self._calls = self._calls, self._calls + 1
        while self._goes_on:
            told = self._next_shard(call, len(items))
            if told["over"]:
                return
            if told["shard"] is not None:
                yield items[told["shard"]]
                self._finish_shard(call, told["shard"])
            self.clock()

    @one_at_a_time
    def wait(self, ticket: Ticket | PullTicket) -> None:
        """Block until the servers have taken a push in, or until what was prefetched is here.

        A push is on its server then, and on those that hold its copies. Under BSP it is applied when its clock ends.
        """
        ticket.wait(self._links)

    @one_at_a_time
    def retire(self) -> None:
        """Tell everybody that this worker is done, so that nobody waits for it."""
        self._links.flush()
        self.staleness.end_clock(self._links.clock, last=True)
        self._coordinator.retire()
        self._links.ask_everyone(Op.RETIRE)
        self._links.check()

    @one_at_a_time
    def _next_shard(self, call: int, count: int) -> dict[str, Any]:
        return self._coordinator.next_shard(call, count)

    @one_at_a_time
    def _finish_shard(self, call: int, shard: int) -> None:
        self._links.flush()
        self._links.check()
        self._coordinator.finish_shard(call, shard)

    def close(self) -> None:
        """End the connections."""
        self._links.close()
        self._coordinator.close()
