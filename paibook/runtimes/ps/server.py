"""A parameter server: one thread per connection, each a loop over requests; ``serve`` runs inside a server rank."""

from __future__ import annotations

import contextvars
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from paibook.clusters.contract import Place
from paibook.comms.shared_channel import offer
from paibook.comms.wire import Channel, ChannelClosed, HandshakeError, Header, accept, address_toward, listen
from paibook.errors import PaibookError, RunError, TableError
from paibook.hyperparameters import HyperParameters
from paibook.metrics import Recorder, recording
from paibook.program import capture_error
from paibook.runtimes.ps.board import ClockBoard
from paibook.runtimes.ps.coordinator import Until
from paibook.runtimes.ps.filters import FILTERS, encode, receive
from paibook.runtimes.ps.holdups import HOLDUP_MIME, Holdup
from paibook.runtimes.ps.key_sets import ReceivedKeys
from paibook.runtimes.ps.messages import GO_ON, KNOWN_KEYS, SERVER_MIME, Op, Scene, ServerJob
from paibook.runtimes.ps.shards import TableSpec
from paibook.runtimes.ps.tables import DenseTable, Shard, SparseTable

log = logging.getLogger(__name__)

DRIVER_SECONDS = 60.0  # a driver that does not come within this time will not come
_POLL_SECONDS = 0.2  # how soon an interrupt of an inline rank, a thread, is noticed


def serve(place: Place, job: ServerJob) -> None:
    """Serve one run: announce the address, answer until the driver says that the run is over or is gone.

    Raises:
        UserCodeError: The cell's definitions or its ``update`` raised.
        RunError: No driver came, or it went away in the middle.
    """
    recorder = Recorder(lambda batch: place.emit("metric", batch), place.rank)
    with recording(recorder):
        listener = listen(address_toward(job.toward) if job.toward else "127.0.0.1")
        try:
            update = _user_update(place, job.scene)
            server = Server(job, listener, update, lambda h: place.emit("display", {HOLDUP_MIME: h.to_wire()}))
            host, port = listener.getsockname()[:2]
            place.emit("display", {SERVER_MIME: {"rank": job.rank, "host": host, "port": port}})
            server.run()
        finally:
            listener.close()


class Server:
    """The tables of one server rank and the connections to them.

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
        self.job = job
        self.scene = job.scene
        self.tables: list[Shard] = []
        self.board = ClockBoard(
            job.scene.consistency,
            job.scene.world_size,
            self._apply_clock,
            None if job.until is None else Until.parse(job.until),
            report,
        )
        listener.setblocking(False)  # a peer may vanish between select and accept
        self._listener = listener
        self._update = update
        self._channels: set[Channel] = set()
        self._lock = threading.Lock()
        self._over = False
        self._failure: BaseException | None = None
        self._driver_came = False
        self._wake_read, self._wake_write = socket.socketpair()

    def run(self) -> None:
        """Accept connections until the run is over; raises what went wrong."""
        threads: list[threading.Thread] = []
        deadline = time.monotonic() + DRIVER_SECONDS
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._listener, selectors.EVENT_READ)
                selector.register(self._wake_read, selectors.EVENT_READ)
                while not self._over:
                    for key, _ in selector.select(_POLL_SECONDS):
                        if key.fileobj is self._listener and not self._over:
                            self._accept(threads)
                    if not self._driver_came and time.monotonic() > deadline:
                        self.end(RunError(f"no driver came to server rank {self.job.rank} in {DRIVER_SECONDS:.0f} s"))
        finally:
            self.end()
            for thread in threads:
                thread.join(5.0)
            self._wake_read.close()
            self._wake_write.close()
        if self._failure is not None:
            raise self._failure

    def end(self, failure: BaseException | None = None) -> None:
        """Stop serving and free every peer; the first failure is what ``run`` raises. For any thread."""
        with self._lock:
            if self._over:
                return
            self._over, self._failure = True, failure
            channels = tuple(self._channels)
            self._wake_write.send(b"\0")
        self.board.close()
        for channel in channels:
            channel.close()

    def add_table(self, spec: TableSpec) -> int:
        """The number of a declared table, made on its first declaration.

        Raises:
            TableError: It was declared otherwise before.
        """
        with self._lock:
            for number, table in enumerate(self.tables):
                if table.spec.name == spec.name:
                    if difference := table.spec.differs_from(spec):
                        raise TableError(f"table {spec.name!r} was declared before, and differently: now {difference}")
                    return number
            self.tables.append(self._make_table(spec))
            return len(self.tables) - 1

    def _make_table(self, spec: TableSpec) -> Shard:
        try:
            if spec.sparse:
                return SparseTable(spec, self._update)
            return DenseTable(spec, self._update, self.job.rank, self.scene.servers)
        except TableError as error:
            raise TableError(f"table {spec.name!r}: {error}") from error

    def _apply_clock(self, clock: int) -> None:
        for table in tuple(self.tables):
            table.apply_kept(clock)

    def _accept(self, threads: list[threading.Thread]) -> None:
        try:
            sock, address = self._listener.accept()
        except OSError as error:
            log.warning("a connection came to nothing: %s", error)
            return
        # Each thread gets a copy of this context, so that what `update` prints and logs finds its way.
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(self._attend, sock, address), daemon=True)
        thread.start()
        threads.append(thread)

    def _attend(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """One connection, from its first byte to its last; nothing it sends may end the server by accident."""
        try:
            channel = offer(accept(sock, self.scene.token, security=self.scene.certificate))
        except (HandshakeError, ChannelClosed) as error:
            if not self._over:
                log.warning("dropped a connection from %s:%s: %s", *address[:2], error)
            return
        with self._lock:
            if self._over:
                channel.close()
                return
            self._channels.add(channel)
        try:
            self._answer(channel)
        except ChannelClosed:
            pass  # the peer's own rank, or the driver, tells why
        except PaibookError as error:
            self.end(error)
        except Exception as error:
            self.end(capture_error(error, f"server rank {self.job.rank}"))
        finally:
            channel.close()
            with self._lock:
                self._channels.discard(channel)

    def _answer(self, channel: Channel) -> None:
        header = channel.receive()
        peer = channel.receive_json(header)
        if header.op != Op.JOIN:
            raise RunError(f"a peer of server rank {self.job.rank} began with operation {header.op} instead of JOIN")
        if peer["role"] == "driver":
            self._driver_came = True
            channel.send(Header(Op.OK, sequence=header.sequence))
            try:
                DriverLink(self, channel).loop()
            finally:
                self.end(RunError("the notebook's side of the run is gone"))
        else:
            self.board.begin()
            channel.send(Header(Op.OK, sequence=header.sequence))
            WorkerLink(self, channel, int(peer["rank"])).loop()


class WorkerLink:
    """The server's side of one worker's connection."""

    def __init__(self, server: Server, channel: Channel, rank: int) -> None:
        self._server = server
        self._channel = channel
        self._rank = rank
        self._known = ReceivedKeys()
        self._stable = server.scene.consistency.buffers
        self._do: dict[int, Callable[[Header], None]] = {
            Op.PULL: self._pull,
            Op.PUSH: self._push,
            Op.CLOCK: self._clock,
            Op.DECLARE: self._declare,
            Op.RETIRE: self._retire,
        }

    def loop(self) -> None:
        """Answer requests in order until the worker is gone.

        Raises:
            ChannelClosed: It is.
            UserCodeError: The cell's ``update`` raised.
        """
        while True:
            header = self._channel.receive()
            act = self._do.get(header.op)
            if act is None:
                raise RunError(f"worker rank {self._rank} asked for operation {header.op}, which is not one")
            act(header)

    def _pull(self, header: Header) -> None:
        table = self._server.tables[header.table]
        keys = self._known.receive(header, self._channel)
        slowest = self._server.board.wait_to_read(self._rank, header.clock)
        try:
            rows = table.read(keys, self._stable)
        except TableError as error:
            self._refuse(header, error)
            return
        sent = encode(header.flags & FILTERS, rows) if header.flags & FILTERS else [rows]
        self._channel.send(Header(Op.OK, sequence=header.sequence, clock=slowest), *sent)

    def _push(self, header: Header) -> None:
        table = self._server.tables[header.table]
        keys = self._known.receive(header, self._channel)
        rows = table.rows if keys is None else len(keys)
        sent = 0 if keys is None or header.flags & KNOWN_KEYS else keys.nbytes
        shape = (rows, *table.spec.row_shape)
        gradient = receive(self._channel, header.flags, header.length - sent, shape, np.dtype(table.spec.dtype))
        try:
            if self._stable:
                table.keep(header.clock, self._rank, keys, gradient)
            else:
                self._guard(lambda: table.apply(keys, gradient))
        except TableError as error:
            self._refuse(header, error)
            return
        self._channel.send(Header(Op.OK, sequence=header.sequence))

    def _clock(self, header: Header) -> None:
        board = self._server.board
        metrics = self._metrics(header)
        self._guard(lambda: board.tick(self._rank, metrics))
        # Server 0 alone says whether training goes on, so that all workers hear one decision.
        goes_on = board.goes_on(self._rank, header.clock) if self._server.job.rank == 0 else True
        self._channel.send(Header(Op.OK, flags=GO_ON if goes_on else 0, sequence=header.sequence))

    def _retire(self, header: Header) -> None:
        metrics = self._metrics(header)
        self._guard(lambda: self._server.board.retire(self._rank, metrics))
        self._channel.send(Header(Op.OK, sequence=header.sequence))

    def _declare(self, header: Header) -> None:
        try:
            number = self._server.add_table(TableSpec.from_wire(self._channel.receive_json(header)))
        except TableError as error:
            self._refuse(header, error)
            return
        self._channel.send(Header(Op.OK, sequence=header.sequence, table=number))

    def _metrics(self, header: Header) -> dict[str, float]:
        return self._channel.receive_json(header) if header.length else {}

    def _refuse(self, header: Header, error: TableError) -> None:
        self._channel.send_json(Header(Op.ERROR, sequence=header.sequence), {"message": str(error)})

    def _guard(self, act: Callable[[], None]) -> None:
        """Do what may run the cell's ``update``; when it raises, that is the run's error, wherever it surfaces."""
        try:
            act()
        except ChannelClosed:
            raise
        except Exception as error:
            raise capture_error(error, f"server rank {self._server.job.rank}") from error


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
            if header.op == Op.STATUS:
                self._channel.send_json(answer, self._status())
            elif header.op == Op.DESCRIBE:
                self._channel.send_json(answer, [self._shard(table) for table in self._server.tables])
            elif header.op == Op.FETCH:
                keys, rows = self._server.tables[header.table].export()
                self._channel.send(answer, *(() if keys is None else (keys,)), rows)
            elif header.op == Op.SHUTDOWN:
                self._channel.send(answer)
                self._server.end()
                return

    def _status(self) -> dict[str, Any]:
        vector = self._server.board.vector
        return {
            "clock": max(vector.clocks) if vector.finished else vector.slowest,
            "reason": self._server.board.reason,
        }

    @staticmethod
    def _shard(table: Shard) -> dict[str, Any]:
        return {"spec": table.spec.to_wire(), "rows": table.rows, "bytes": table.rows * table.spec.row_bytes}


def _user_update(place: Place, scene: Scene) -> Callable[..., Any] | None:
    """Run the cell's definitions on the server; its ``update`` function, if there is one."""
    import paibook

    namespace = place.namespace
    namespace.update({"pai": paibook, "hp": HyperParameters(**scene.hyperparameters), **scene.variables})
    namespace.pop("update", None)  # an earlier cell's
    try:
        scene.program.definitions().execute(namespace)
    except Exception as error:
        raise capture_error(error, f"server rank {place.rank}") from error
    update = namespace.get("update")
    return update if callable(update) else None
