"""A parameter server: the partitions that it holds, and its part in the chains; ``serve`` runs inside a server rank."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from paibook.clusters.contract import Place
from paibook.comms.wire import Channel, ChannelClosed, Header, address_toward, listen
from paibook.errors import RunError
from paibook.metrics import Recorder, recording
from paibook.runtimes.ps.activity import Activity
from paibook.runtimes.ps.board import ClockBoard
from paibook.runtimes.ps.budget import MemoryBudget
from paibook.runtimes.ps.chain import Successor, follow
from paibook.runtimes.ps.checkpoints import Saver, restore
from paibook.runtimes.ps.definitions import defined
from paibook.runtimes.ps.holdups import HOLDUP_MIME, Holdup
from paibook.runtimes.ps.membership import Membership
from paibook.runtimes.ps.messages import Op, ServerJob
from paibook.runtimes.ps.partition import Partition
from paibook.runtimes.ps.service import Service
from paibook.runtimes.ps.shards import TableSpec
from paibook.runtimes.ps.views import View
from paibook.runtimes.ps.worker_link import WorkerLink

if TYPE_CHECKING:
    from paibook.runtimes.ps.tables import Shard

PRIMARY_SECONDS = 10.0  # a worker may know of a view before the server does, but not for long


def serve(place: Place, job: ServerJob) -> None:
    """Serve one run: join it, answer until the driver says that the run is over or is gone.

    Raises:
        UserCodeError: The cell's definitions or its ``update`` raised.
        RunError: No driver came, or it went away in the middle.
        Evicted: The coordinator took this server for dead.
    """
    recorder = Recorder(lambda batch: place.emit("metric", batch), place.rank)
    with recording(recorder):
        listener = listen(address_toward(job.toward) if job.toward else "127.0.0.1")
        try:
            update = defined(place, job.scene, "update", f"server rank {place.rank}")
            Server(job, listener, update, lambda h: place.emit("display", {HOLDUP_MIME: h.to_wire()})).run()
        finally:
            listener.close()


class Server(Service):
    """The partitions of one server rank and the connections to them.

    Args:
        job: What to serve.
        listener: A bound, listening socket.
        update: The cell's own ``update(weight, grad)``, if it defines one.
        report: See ``ClockBoard``.
    """

    def __init__(
        self,
        job: ServerJob,
        listener: socket.socket,
        update: Callable[..., Any] | None,
        report: Callable[[Holdup], None] = lambda holdup: None,
    ) -> None:
        super().__init__(f"server rank {job.rank}", listener, job.scene.token, job.scene.certificate)
        scene = job.scene
        self.job = job
        self.scene = scene
        self.activity = Activity()
        self.board = ClockBoard(scene.consistency, scene.world_size, self._moved, clock=scene.clock, report=report)
        buffers = scene.consistency.buffers
        restore = self._restore if scene.clock else None
        self.partitions = [Partition(p, self._make_shard, buffers, scene.clock, restore) for p in range(scene.servers)]
        self._followers: list[Successor | None] = [None] * scene.servers
        self._stepped_down: set[int] = set()  # partitions that it answered for, until it does so again
        self._to_workers: set[Channel] = set()
        self._workers: dict[int, tuple[int, int]] = {}  # by rank: the incarnation, and the clock at which it began
        self._update = update
        self._budget = None if job.storage.memory is None else MemoryBudget(job.storage.memory)
        self._membership = Membership(self, listener.getsockname()[:2])
        self._saver = (
            Saver(scene.saving, scene.servers, self._membership.saved, self.end) if scene.saving is not None else None
        )

    def run(self) -> None:
        """Join the run and serve it to its end; raises what went wrong."""
        for spec in self.job.tables:
            self._warm_up(TableSpec.from_wire(dict(spec)))
        self._membership.start()
        super().run()

    def attend(self, channel: Channel, sequence: int, peer: dict[str, Any]) -> None:
        """Serve a worker, or a server before this one in a chain."""
        if peer["role"] == "replica":
            follow(channel, self.partitions[int(peer["partition"])])
            return
        rank, incarnation = int(peer["rank"]), int(peer["incarnation"])
        told = self.board.join(rank, incarnation)
        # A clock that is applied was finished by all, whoever has forgotten it.
        told["clock"] = max(told["clock"], *(partition.applied for partition in self.partitions))
        channel.send_json(Header(Op.OK, sequence=sequence), told)
        with self.board.changed:
            self._to_workers.add(channel)
        try:
            WorkerLink(self, channel, rank, incarnation).loop()
        finally:
            with self.board.changed:
                self._to_workers.discard(channel)

    def attend_driver(self, channel: Channel, sequence: int) -> None:
        """Answer the driver until it says that the run is over."""
        channel.send(Header(Op.OK, sequence=sequence))
        DriverLink(self, channel).loop()

    def described(self) -> dict[str, Any]:
        """What it has been asked so far, and what its shards hold."""
        with self.board.changed:
            held = [partition for partition in self.partitions if partition.member or partition.primary]
        shards = [
            {"table": shard.spec.name, "primary": p.primary, "rows": shard.rows, "bytes": _size(shard), **shard.usage()}
            for p in held
            for shard in tuple(p.shards.values())
        ]
        process_bytes = psutil.Process().memory_info().rss
        waiting = self.board.waiting
        return {**self.activity.to_wire(), "shards": shards, "process_bytes": process_bytes, "waiting": waiting}

    def release(self) -> None:
        """Let go of everybody."""
        self.board.close()
        self._membership.close()
        for follower in self._followers:
            if follower is not None:
                follower.close()
        if self._saver is not None:
            self._saver.close()
        for partition in self.partitions:
            partition.clear()

    def finish(self) -> None:
        """Training is over: wait until the checkpoints that were begun are written."""
        if self._saver is not None:
            self._saver.close(wait=True)

    def reserve(self, rank: int, nbytes: int) -> None:
        """A worker's connection takes these bytes, which tables may not."""
        if self._budget is not None:
            self._budget.reserve(rank, nbytes)

    def begin(self, rank: int, incarnation: int, base: int, clock: int) -> None:
        """A worker's process, which began at clock ``base``, is at ``clock``."""
        with self.board.changed:
            if incarnation < self._workers.get(rank, (0, 0))[0]:
                return
            self._workers[rank] = (incarnation, base)
            for partition in self.partitions:
                partition.renew(rank, incarnation, base)
            self.board.advance(rank, incarnation, clock)

    def adopt(self, view: View, known: dict[str, Any]) -> None:
        """Take the place that a new view gives this server; ``known`` is what the coordinator knows of clocks."""
        with self.board.changed:
            self.board.learn(**known)
            for partition in self.partitions:
                with partition.lock:  # one step: a primary must not answer before it waits for its followers
                    if view.primaries[partition.number] == self.job.rank and not partition.primary:
                        self._promote(partition)
                    partition.member = self.job.rank in view.chain(partition.number)
                    if not partition.member:
                        partition.clear()
                    self._chain(view, partition)
            self.board.changed.notify_all()

    def step_down(self, number: int) -> None:
        """Answer for a partition no more; workers, whose connections break, ask the coordinator who does."""
        with self.board.changed:
            self._stepped_down.add(number)
            self.partitions[number].step_down()
            channels = tuple(self._to_workers)
            self.board.changed.notify_all()
        for channel in channels:
            channel.close()

    def primary(self, number: int) -> Partition:
        """A partition for which this server answers; waits where the view that says so is still on its way.

        Raises:
            ChannelClosed: It has answered for it, and does so no more.
            RunError: It does not come.
        """
        partition = self.partitions[number]
        if not partition.primary:
            with self.board.changed:
                came = self.board.wait(lambda: partition.primary or number in self._stepped_down, PRIMARY_SECONDS)
                if number in self._stepped_down:
                    raise ChannelClosed(f"{self.name} answers for partition {number} no more")
                if not came:
                    raise RunError(f"{self.name} was asked for partition {number}, which is not its own")
        return partition

    def _promote(self, partition: Partition) -> None:
        partition.primary, partition.source = True, None
        self._stepped_down.discard(partition.number)
        for rank, (incarnation, base) in self._workers.items():
            partition.renew(rank, incarnation, base)
        partition.apply_until(self.board.vector.slowest)

    def _chain(self, view: View, partition: Partition) -> None:
        number = partition.number
        server = view.successor(number, self.job.rank)
        address = None if server is None else view.addresses[server]
        present = self._followers[number]
        if address == (None if present is None else present.address):
            return
        link = None
        if server is not None and address is not None:
            told = partial(self._membership.in_sync, number, server, address.incarnation)
            link = Successor(partition, address, self.token, told, self.security)
        self._followers[number] = link
        partition.attach(link, server in view.backups[number])

    def _moved(self, slowest: int) -> None:
        saver = None if self.board.vector.finished else self._saver  # then it is no clock that was finished
        for partition in self.partitions:
            if partition.primary:
                partition.apply_until(slowest)
                if saver is not None and saver.due(slowest):
                    with partition.lock:
                        saver.save(slowest, partition)

    def _make_shard(self, spec: TableSpec, partition: int) -> Shard:
        # They load numba: here, so that only servers do.
        from paibook.runtimes.ps.sparse import SparseTable
        from paibook.runtimes.ps.tables import DenseTable

        storage, servers = self.job.storage, self.scene.servers
        shard: Shard
        if spec.sparse:
            shard = SparseTable(spec, self._update, servers, self._budget, storage.folder, storage.nan)
        else:
            shard = DenseTable(spec, self._update, partition, servers, self._budget, storage.nan)
        return shard

    def _warm_up(self, spec: TableSpec) -> None:
        """Load what the table's steps are compiled to: the run must not wait for it once this server has joined."""
        from paibook.runtimes.ps.sparse import SparseTable
        from paibook.runtimes.ps.tables import DenseTable

        if spec.optimizer is None:
            return  # the cell's own function is not called for nothing
        row = replace(spec, max_rows=None, admit=None) if spec.sparse else replace(spec, shape=(1, *spec.shape[1:]))
        shard: Shard = SparseTable(row, None) if spec.sparse else DenseTable(row, None, 0, 1)
        key = np.zeros(1, np.int64)
        for keys in [key] if spec.sparse else [key, None]:
            shard.apply(*shard.finite(keys, np.zeros((1, *spec.row_shape), spec.dtype), 0, 0)[:2])
        shard.load(shard.dump())
        shard.read(key, stable=False)

    def _restore(self, shard: Shard, partition: Partition) -> None:
        assert self.scene.saving is not None
        declared = [known.spec.name for known in partition.shards.values()]
        restore(self.scene.saving, shard, partition.number, self.scene.servers, declared)


class DriverLink:
    """The server's side of the driver's connection; when it ends, so does the server."""

    def __init__(self, server: Server, channel: Channel) -> None:
        self._server = server
        self._channel = channel

    def loop(self) -> None:
        """Answer the driver until it says that the run is over."""
        while True:
            header = self._channel.receive()
            answer = Header(Op.OK, sequence=header.sequence, table=header.table)
            if header.op == Op.DESCRIBE:
                shards = self._server.primary(header.table).shards
                self._channel.send_json(answer, [self._shard(number, shards[number]) for number in sorted(shards)])
            elif header.op == Op.FETCH:
                number, partition = divmod(header.table, len(self._server.partitions))
                for keys, rows in self._server.partitions[partition].shards[number].export():
                    self._channel.send(answer._replace(keys=len(rows)), *(() if keys is None else (keys,)), rows)
                self._channel.send(answer)
            elif header.op == Op.SHUTDOWN:
                self._server.finish()
                self._channel.send(answer)
                self._server.end()
                return

    @staticmethod
    def _shard(number: int, table: Shard) -> dict[str, Any]:
        spec = table.spec.to_wire()
        return {"number": number, "spec": spec, "rows": table.rows, "bytes": _size(table), **table.usage()}


def _size(shard: Shard) -> int:
    return shard.rows * shard.spec.row_bytes
