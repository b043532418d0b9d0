"""The coordinator: which server holds what, when training ends, who works on which part of the data.

It is the one authority of a run. Its decisions are in a log, and a new process in its place goes on from there; whoever
was connected connects again and says where it stands.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from paibook.clusters.contract import Place
from paibook.comms.wire import Channel, ChannelClosed, Header, address_toward, listen
from paibook.errors import RunError
from paibook.runtimes.ps import checkpoints
from paibook.runtimes.ps.board import ClockBoard
from paibook.runtimes.ps.definitions import defined
from paibook.runtimes.ps.ending import say_over
from paibook.runtimes.ps.holdups import HOLDUP_MIME, Holdup
from paibook.runtimes.ps.ledger import Ledger
from paibook.runtimes.ps.messages import COORDINATOR_MIME, CoordinatorJob, Op
from paibook.runtimes.ps.service import Service
from paibook.runtimes.ps.stopping import Status, StopRule
from paibook.runtimes.ps.until import Until
from paibook.runtimes.ps.views import (
    Address,
    Move,
    PartitionLost,
    View,
    after_loss,
    first_view,
    next_move,
    with_copy,
    with_joined,
    with_moved,
)
from paibook.runtimes.ps.worker_desk import WorkerDesk

PORT_SECONDS = 10.0  # for the port of a coordinator that died to be free
MOVE_SECONDS = 5.0  # for a primary that is asked to step down to do so, before the driver is answered all the same
REJOIN_SECONDS = 5.0  # for the servers to come back to a coordinator that took the place of another


def coordinate(place: Place, job: CoordinatorJob) -> None:
    """Coordinate one run: announce the address, answer until the driver says that the run is over or is gone.

    Raises:
        RunError: No driver came, or it went away in the middle.
    """
    host = address_toward(job.toward) if job.toward else "127.0.0.1"
    listener = _listen_again(host, job.port) if job.port else listen(host)
    try:
        should_stop = defined(place, job.scene, "should_stop", "the coordinator") if job.stops else None
        report = partial(_report, place)
        coordinator = Coordinator(job, listener, should_stop, report)
        told = {"host": host, "port": listener.getsockname()[1], "pid": os.getpid()}
        place.emit("display", {COORDINATOR_MIME: told})
        coordinator.run()
    finally:
        listener.close()


class Coordinator(Service):
    """The decisions of one run, and the connections to servers, workers and the driver.

    Args:
        job: What to coordinate.
        listener: A bound, listening socket.
        should_stop: The cell's function, if it has one.
        report: See ``ClockBoard``.

    Attributes:
        scene: The run's.
        ledger: What is decided; guarded by ``board.changed``, as all else here but the publishing of checkpoints.
        board: Where the workers are.
    """

    def __init__(
        self,
        job: CoordinatorJob,
        listener: socket.socket,
        should_stop: Callable[[Status], Any] | None = None,
        report: Callable[[Holdup], None] = lambda holdup: None,
    ) -> None:
        super().__init__("the coordinator", listener, job.scene.token, job.scene.certificate)
        self.scene = job.scene
        self.ledger = ledger = Ledger(job.log, {} if self.scene.saving is None else self.scene.saving.best)
        self.board = ClockBoard(
            job.scene.consistency,
            job.scene.world_size,
            lambda slowest: None,
            _rule(job, should_stop, ledger.best(), self._improved),
            job.watched,
            job.scene.clock,
            lambda reason: ledger.write("stop", reason=reason),
            report,
        )
        self.board.learn([self.clock_of(rank) for rank in range(job.scene.world_size)], list(ledger.retired))
        self.board.reason, self.board.began = ledger.reason, ledger.began
        self._joined: dict[int, Address] = {}  # servers, before the first view
        self._servers: dict[int, Channel] = {}
        self._saved: dict[int, dict[int, list[dict[str, Any]]]] = {}  # checkpoints on their way: by clock, partition
        self._publishing = threading.Lock()  # of its own: a slow disk must not hold up the clocks; taken first
        self._fatal = ""
        self._moving: Move | None = None  # what a primary was asked for
        if ledger.view is not None:
            self._missing = threading.Timer(REJOIN_SECONDS, self._miss_servers)
            self._missing.daemon = True
            self._missing.start()

    def attend(self, channel: Channel, sequence: int, peer: dict[str, Any]) -> None:
        """Serve a server or a worker."""
        if peer["role"] == "server":
            self._attend_server(channel, peer)
        else:
            WorkerDesk(self, channel, int(peer["rank"]), int(peer["incarnation"])).serve(sequence, peer)

    def attend_driver(self, channel: Channel, sequence: int) -> None:
        """Answer the driver until it says that the run is over."""
        channel.send(Header(Op.OK, sequence=sequence))
        while True:
            header = channel.receive()
            told = channel.receive_json(header) if header.length else {}
            answer = Header(Op.OK, sequence=header.sequence)
            if header.op == Op.STATUS:
                with self.board.changed:  # who is sent to a primary that is just being moved would have to come again
                    self.board.wait(lambda: self._moving is None, MOVE_SECONDS)
                channel.send_json(answer, self._status())
            elif header.op == Op.LOST:
                if told["role"] == "server":
                    self._lose(int(told["rank"]), int(told["incarnation"]))
                else:
                    self.free(int(told["rank"]), int(told["incarnation"]))
                channel.send(answer)
            elif header.op == Op.SHUTDOWN:
                channel.send(answer)
                self.end()
                return

    def described(self) -> dict[str, Any]:
        """The status, and where each worker is."""
        with self.board.changed:
            consistency = self.scene.consistency
            return {
                **self._status(),
                "clocks": [self.clock_of(rank) for rank in range(self.scene.world_size)],
                "retired": sorted(self.board.vector.retired),
                "waiting": self.board.waiting,
                "consistency": consistency.kind,
                "staleness_bound": None if consistency.kind == "asp" else consistency.staleness,
            }

    def release(self) -> None:
        """Say that the run is over, and free whoever waits."""
        with self.board.changed:
            for channel in tuple(self._channels):
                say_over(channel)
            self.board.close()
            self.ledger.close()

    def clock_of(self, rank: int) -> int:
        """The clock to which a worker has come, as far as is known here."""
        decided = max(self.ledger.committed.get(rank, 0), self.ledger.retired.get(rank, 0))
        return max(decided, self.board.vector.clocks[rank])

    def free(self, rank: int, incarnation: int) -> None:
        """A worker's process is dead or has left: what it had not done of the data is for others."""
        with self.board.changed:
            self.ledger.free((rank, incarnation))
            self.board.changed.notify_all()

    def _improved(self, of: str, value: float, clock: int) -> None:
        with self.board.changed:
            self.ledger.note("best", of=of, value=value, clock=clock)

    def _status(self) -> dict[str, Any]:
        with self.board.changed:
            vector, view = self.board.vector, self.ledger.view
            clock = max(vector.clocks) if vector.finished else vector.slowest
            wire = None if view is None else view.to_wire()
            tables = [spec.to_wire() for spec in self.ledger.tables]
            return {
                "clock": clock,
                "reason": self.board.reason,
                "view": wire,
                "fatal": self._fatal,
                "tables": tables,
            }

    def _attend_server(self, channel: Channel, peer: dict[str, Any]) -> None:
        host, port = peer["address"]
        rank, address = int(peer["rank"]), Address(host, port, int(peer["incarnation"]))
        with self.board.changed:
            if not self._admit(rank, address, channel):
                channel.send_json(Header(Op.ERROR), {"message": f"server rank {rank} was taken for dead"})
                return
        try:
            while True:
                header = channel.receive()
                told = channel.receive_json(header)
                if header.op == Op.IN_SYNC:
                    self._copied(told["partition"], told["server"], told["incarnation"])
                elif header.op == Op.YIELDED:
                    self._move(told["view"])
                elif header.op == Op.SAVED:
                    self._save(told["clock"], told["partition"], told["tables"])
                    with self.board.changed:  # views go over the same channel
                        channel.send(Header(Op.SAVED))
        finally:
            self._lose(rank, address.incarnation, channel)

    def _admit(self, rank: int, address: Address, channel: Channel) -> bool:
        """Take a server in; False where it was taken for dead before."""
        view = self.ledger.view
        if view is None:
            self._servers[rank], self._joined[rank] = channel, address
            if len(self._joined) == self.scene.servers:
                self._publish(first_view(dict(sorted(self._joined.items())), self.scene.replicas))
            return True
        if view.addresses.get(rank) == address:  # it comes back to a coordinator that took the place of another
            self._servers[rank] = channel
            self._tell(view, channel)
            if len(self._servers) == len(view.addresses):
                self._plan_move(view)
            return True
        if address.incarnation <= self.ledger.incarnations.get(rank, -1):
            return False
        if rank in view.addresses:
            self._lose(rank, view.addresses[rank].incarnation)
        if not self._fatal:
            assert self.ledger.view is not None
            self._servers[rank] = channel
            self._publish(with_joined(self.ledger.view, rank, address))
        return True

    def _lose(self, rank: int, incarnation: int, channel: Channel | None = None) -> None:
        """A server is dead, or its connection is: what it held is answered for by others from now on."""
        with self.board.changed:
            view = self.ledger.view
            if self.over or view is None or rank not in view.addresses:
                return
            if view.addresses[rank].incarnation != incarnation or channel not in (None, self._servers.get(rank)):
                return
            self._servers.pop(rank, None)
            try:
                self._publish(after_loss(view, rank))
            except PartitionLost as error:
                self._fatal, self._moving = str(error), None
                self.board.changed.notify_all()

    def _miss_servers(self) -> None:
        """Those that have not come back to this coordinator died while there was none."""
        with self.board.changed:
            view = self.ledger.view
            for rank, address in {} if view is None else dict(view.addresses).items():
                if rank not in self._servers:
                    self._lose(rank, address.incarnation)

    def _copied(self, partition: int, server: int, incarnation: int) -> None:
        with self.board.changed:
            view = self.ledger.view
            if view is None or server not in view.addresses or view.addresses[server].incarnation != incarnation:
                return
            changed = with_copy(view, partition, server)
            if changed is not view:
                self._publish(changed)

    def _publish(self, view: View) -> None:
        self.ledger.write("view", view=view.to_wire())
        for rank in view.addresses:
            if rank in self._servers:
                self._tell(view, self._servers[rank])
        self._moving = None
        self._plan_move(view)
        self.board.changed.notify_all()

    def _plan_move(self, view: View) -> None:
        """Where a server answers for more than its part, ask it to step down from a partition first."""
        over = self._fatal or self.board.reason is not None or self.board.vector.finished
        move = None if over else next_move(view)
        channel = None if move is None else self._servers.get(view.primaries[move.partition])
        if move is None or channel is None:
            return
        self._moving = move
        try:
            channel.send_json(Header(Op.YIELD), {"partition": move.partition, "view": view.number})
        except ChannelClosed:
            pass  # read in its own loop, and others answer in its place

    def _move(self, number: int) -> None:
        """A primary has stepped down; where the view has changed meanwhile, it has been told to answer again."""
        with self.board.changed:
            view = self.ledger.view
            if view is not None and view.number == number and self._moving is not None:
                self._publish(with_moved(view, self._moving))

    def _tell(self, view: View, channel: Channel) -> None:
        try:
            channel.send_json(Header(Op.VIEW), {"view": view.to_wire(), "known": self.board.known()})
        except ChannelClosed:
            pass  # read in its own loop

    def _save(self, clock: int, partition: int, tables: list[dict[str, Any]]) -> None:
        """A partition's part of a checkpoint is on disk; when all are, the checkpoint is published."""
        saving = self.scene.saving
        with self.board.changed:
            if saving is None or clock <= self.ledger.checkpoint:
                return
            parts = self._saved.setdefault(clock, {})
            parts[partition] = tables
            if len(parts) < self.scene.servers:
                return
            self._saved = {other: found for other, found in self._saved.items() if other > clock}
            best = self.ledger.best(clock)
        with self._publishing:
            if clock <= self.ledger.checkpoint or self.over:
                return
            try:
                checkpoints.publish(saving.folder, clock, list(parts.values()), best)
            except OSError as error:
                self.end(checkpoints.unwritable(saving.folder, clock, error))  # before a later one is tried
                return
            with self.board.changed:
                self.ledger.write("checkpoint", clock=clock)


def _rule(
    job: CoordinatorJob,
    should_stop: Callable[[Status], Any] | None,
    best: Mapping[str, tuple[float, int]],
    improved: Callable[[str, float, int], None],
) -> StopRule | None:
    until = None if job.until is None else Until.parse(job.until)
    return None if until is None and should_stop is None else StopRule(until, should_stop, best, improved)


def _report(place: Place, holdup: Holdup) -> None:
    place.emit("display", {HOLDUP_MIME: holdup.to_wire()})


def _listen_again(host: str, port: int) -> socket.socket:
    """Listen where the coordinator before this one did."""
    deadline = time.monotonic() + PORT_SECONDS
    while True:
        try:
            return socket.create_server((host, port), backlog=512)
        except OSError as error:
            if time.monotonic() > deadline:
                raise RunError(f"the coordinator cannot listen on port {port} again: {error}") from error
            time.sleep(0.05)
