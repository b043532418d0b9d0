"""A process that others connect to: one thread per connection, until the run is over."""

from __future__ import annotations

import contextvars
import ctypes
import logging
import selectors
import socket
import threading
import time
from abc import abstractmethod
from typing import Any, NoReturn

from numpy.typing import NDArray

from paibook.comms.shared_channel import offer
from paibook.comms.wire import Channel, ChannelClosed, HandshakeError, Header, Security, Stream, accept
from paibook.errors import PaibookError, RunError
from paibook.program import capture_error
from paibook.runtimes.ps.messages import Op

log = logging.getLogger(__name__)

DRIVER_SECONDS = 60.0  # a driver that does not come within this time will not come
END_SECONDS = 4.0  # for a connection's thread to end; then what it does for the cell is cut short
_CUT_SECONDS = 0.5  # for that to be noticed
_POLL_SECONDS = 0.2  # how soon an interrupt of an inline rank, a thread, is noticed


class Service:
    """Accepts connections that hold the run's token, and ends when the driver says so or is gone.

    Args:
        name: For messages: ``"server rank 0"``.
        listener: A bound, listening socket.
        token: The run's.
        security: The run's, where connections are encrypted.
    """

    def __init__(self, name: str, listener: socket.socket, token: bytes, security: Security | None = None) -> None:
        listener.setblocking(False)  # a peer may vanish between select and accept
        self.name = name
        self.listener = listener
        self.token = token
        self.security = security
        self._channels: set[Channel] = set()
        self._gate = threading.Lock()
        self._busy: set[int] = set()  # the threads of connections, by ident
        self.over = False
        self._failure: BaseException | None = None
        self._driver_came = False
        self._wake_read, self._wake_write = socket.socketpair()

    def run(self) -> None:
        """Accept connections until the run is over; raises what went wrong."""
        threads: list[threading.Thread] = []
        deadline = time.monotonic() + DRIVER_SECONDS
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self.listener, selectors.EVENT_READ)
                selector.register(self._wake_read, selectors.EVENT_READ)
                while not self.over:
                    for key, _ in selector.select(_POLL_SECONDS):
                        if key.fileobj is self.listener and not self.over:
                            self._accept(threads)
                    if not self._driver_came and time.monotonic() > deadline:
                        self.end(RunError(f"no driver came to {self.name} in {DRIVER_SECONDS:.0f} s"))
        finally:
            self.end()
            self._end_threads(threads)
            self._wake_read.close()
            self._wake_write.close()
        if self._failure is not None:
            raise self._failure

    def end(self, failure: BaseException | None = None) -> None:
        """Stop serving and free every peer; the first failure is what ``run`` raises. For any thread."""
        with self._gate:
            if self.over:
                return
            self.over, self._failure = True, failure
            channels = tuple(self._channels)
            self._wake_write.send(b"\0")
        try:
            self.release()
        finally:  # it may be cut short
            for channel in channels:
                channel.close()

    @abstractmethod
    def attend(self, channel: Channel, sequence: int, peer: dict[str, Any]) -> None:
        """Serve a peer that has joined, other than the driver, until it is gone; ``sequence`` is its JOIN's."""

    @abstractmethod
    def attend_driver(self, channel: Channel, sequence: int) -> None:
        """Serve the driver until it is gone or has ended the run."""

    @abstractmethod
    def described(self) -> dict[str, Any]:
        """How this process stands, JSON-able, for whoever watches the run."""

    @abstractmethod
    def release(self) -> None:
        """Free whoever waits inside this process: the run is over."""

    def _accept(self, threads: list[threading.Thread]) -> None:
        try:
            sock, address = self.listener.accept()
        except OSError as error:
            log.warning("a connection came to nothing: %s", error)
            return
        # Each thread gets a copy of this context, so that what `update` prints and logs finds its way.
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(self._serve, sock, address), daemon=True)
        thread.start()
        threads.append(thread)

    def _end_threads(self, threads: list[threading.Thread]) -> None:
        """Wait for threads that have nothing more to do, and end those that are in the cell's own code all the same."""
        try:
            deadline = time.monotonic() + END_SECONDS
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
        finally:  # an interrupt comes for the same reason; a thread whose join it cut short says that it has ended
            deadline = time.monotonic() + _CUT_SECONDS
            with self._gate:
                for ident in self._busy:
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(_Stop))
            while self._busy and time.monotonic() < deadline:
                time.sleep(0.01)

    def _serve(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """A connection's thread."""
        ident = threading.get_ident()
        with self._gate:
            self._busy.add(ident)
        try:
            self._greet(sock, address)
        except _Stop:
            pass  # there is no more to be done
        finally:
            with self._gate:
                self._busy.discard(ident)

    def _greet(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """One connection, from its first byte to its last; nothing it sends may end the process by accident."""
        try:
            channel = LockedChannel(offer(accept(sock, self.token, security=self.security)).stream)
        except (HandshakeError, ChannelClosed) as error:
            if not self.over:
                log.warning("dropped a connection from %s:%s: %s", *address[:2], error)
            return
        with self._gate:
            if self.over:
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
            self.end(capture_error(error, self.name))
        finally:
            channel.close()
            with self._gate:
                self._channels.discard(channel)

    def _answer_observer(self, channel: Channel) -> NoReturn:
        while True:
            header = channel.receive()
            try:
                told = self.described()
            except Exception as error:  # whoever only looks must not end the run
                log.warning("%s could not say how it stands: %s", self.name, error)
                raise ChannelClosed(str(error)) from error
            channel.send_json(Header(Op.OK, sequence=header.sequence), told)

    def _answer(self, channel: Channel) -> None:
        header = channel.receive()
        peer = channel.receive_json(header)
        if header.op != Op.JOIN:
            raise RunError(f"a peer of {self.name} began with operation {header.op} instead of JOIN")
        if peer["role"] == "observer":
            self._answer_observer(channel)
        if peer["role"] != "driver":
            self.attend(channel, header.sequence, peer)
            return
        self._driver_came = True
        try:
            self.attend_driver(channel, header.sequence)
        finally:
            self.end(RunError("the notebook's side of the run is gone"))


class LockedChannel(Channel):
    """A channel to which any thread may send, one frame at a time: the run may end while another is sent."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self._sending = threading.RLock()

    def send(self, header: Header, *buffers: NDArray[Any] | bytes) -> None:
        """See ``Channel``."""
        with self._sending:
            super().send(header, *buffers)

    def send_at_once(self, header: Header) -> bool:
        """See ``Channel``; it does not wait for others who send, either."""
        if not self._sending.acquire(blocking=False):
            return False
        try:
            return super().send_at_once(header)
        finally:
            self._sending.release()


class _Stop(BaseException):
    """Raised in the cell's own code to end it; outside ``Exception``, so that the cell does not swallow it."""
