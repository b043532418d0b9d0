"""A framed binary channel, mostly over one blocking TCP socket, for NumPy buffers between processes that share a token.

A frame is a fixed header of 32 bytes and ``length`` bytes of payload: raw array memory, or JSON for structured
metadata. Nothing is ever unpickled. Before the first frame both sides prove that they hold the same token, by
HMAC-SHA256 over both sides' nonces (challenge-response as in RFC 2104 and ISO/IEC 9798-4).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import socket
import struct
import time
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from paibook.errors import RunError

VERSION = 1
HANDSHAKE_SECONDS = 10.0
MAX_JSON = 16 << 20

Buffer = NDArray[Any] | bytes | bytearray

_MAGIC = b"PAIWIRE\0"
_GREETING = struct.Struct("<8sH32s")  # magic, version, nonce
_PROOF_BYTES = hashlib.sha256().digest_size
_HEADER = struct.Struct("<BBHIIIQQ")


class ChannelClosed(RunError):
    """The other side ended the connection, or this side was told to."""


class HandshakeError(RunError):
    """The other side does not speak this protocol, speaks another version of it, or does not hold the token."""


class Header(NamedTuple):
    """What a frame is about; 32 bytes on the wire.

    Attributes:
        op: What is asked or answered (0-255); its meaning belongs to the users of the channel.
        flags: Eight bits, likewise.
        table: Number of a table (0-65535).
        sequence: Number of the request; an answer repeats it (32 bits).
        keys: How many keys the payload starts with (32 bits).
        clock: Logical time (32 bits).
        key_set: Identifier of a set of keys sent before; 0 is none (64 bits).
        length: Bytes of payload that follow.
    """

    op: int
    flags: int = 0
    table: int = 0
    sequence: int = 0
    keys: int = 0
    clock: int = 0
    key_set: int = 0
    length: int = 0

    def pack(self) -> bytes:
        """The 32 bytes."""
        return _HEADER.pack(*self)

    @classmethod
    def unpack(cls, data: bytes | bytearray) -> Header:
        """Read 32 bytes back."""
        return cls._make(_HEADER.unpack(data))


class Stream(Protocol):
    """Bytes to and from one peer, in order."""

    def send_all(self, views: list[memoryview]) -> None:
        """Send all of these bytes, one view after the other."""

    def takes(self, size: int) -> bool:
        """Whether so many bytes can surely be sent without waiting for the peer, as long as nobody else sends."""

    def receive_into(self, view: memoryview) -> None:
        """Fill ``view`` with the next bytes; raises ``ChannelClosed`` when the peer ends first."""

    def close(self) -> None:
        """End the connection; frees a thread that waits here, and the peer's. Safe to repeat, and from any thread."""

    # For whoever waits for one of several streams; see ``ready``.

    yields_seconds: float  # how long it pays to look at it again and again before sleeping

    def waited(self, seconds: float) -> None:
        """A wait for it took so long; ``yields_seconds`` may change by that."""

    def at_hand(self) -> bool:
        """Whether bytes can be read that the socket does not show."""

    def before_poll(self) -> bool:
        """As ``at_hand``; where there are none, bytes that come from now on show at the socket."""

    def after_poll(self) -> bool:
        """Whether a socket that showed something means that bytes can be read, or that the stream has ended."""

    def fileno(self) -> int:
        """The socket's descriptor; -1 once closed."""

    def bare_socket(self) -> socket.socket:
        """The TCP connection, which the stream gives up; between frames only."""


class Security(Protocol):
    """What is laid over a connection before anything is said on it; see ``tls``."""

    def as_client(self, sock: socket.socket, timeout: float) -> socket.socket:
        """Begin on the connecting side, in place of the socket given, which is used up."""

    def as_server(self, sock: socket.socket, timeout: float) -> socket.socket:
        """Begin on the accepting side, likewise."""

    def stream(self, sock: socket.socket) -> Stream:
        """What a channel is made over, of a socket that one of these gave."""


class SocketStream:
    """A connected TCP socket."""

    yields_seconds = 0.0

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = sock

    def send_all(self, views: list[memoryview]) -> None:
        """See ``Stream``."""
        while views:
            try:
                sent = self.socket.sendmsg(views)
            except OSError as error:
                raise ChannelClosed(f"the connection broke: {error}") from error
            while views and sent >= len(views[0]):
                sent -= len(views.pop(0))
            if views and sent:
                views[0] = views[0][sent:]

    def takes(self, size: int) -> bool:
        """See ``Stream``."""
        return False

    def receive_into(self, view: memoryview) -> None:
        """See ``Stream``."""
        while view:
            try:
                count = self.socket.recv_into(view)
            except OSError as error:
                raise ChannelClosed(f"the connection broke: {error}") from error
            if count == 0:
                raise ChannelClosed("the other side ended the connection")
            view = view[count:]

    def close(self) -> None:
        """See ``Stream``."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)  # close alone would not wake a thread blocked in recv
        except OSError:
            pass  # the other side was first
        self.socket.close()

    def waited(self, seconds: float) -> None:
        """See ``Stream``."""

    def at_hand(self) -> bool:
        """See ``Stream``."""
        return False

    def before_poll(self) -> bool:
        """See ``Stream``."""
        return False

    def after_poll(self) -> bool:
        """See ``Stream``."""
        return True

    def fileno(self) -> int:
        """See ``Stream``."""
        return self.socket.fileno()

    def bare_socket(self) -> socket.socket:
        """The socket, which the stream gives up; between frames only."""
        return self.socket


class Channel:
    """Frames over one stream; for one thread at a time. ``close`` may come from any thread and frees it."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._header = bytearray(_HEADER.size)

    def send(self, header: Header, *buffers: NDArray[Any] | bytes) -> None:
        """Send one frame; ``header.length`` is filled in. Arrays must be C-contiguous and go without a copy.

        Raises:
            ChannelClosed: The connection has ended.
        """
        views = [_bytes_of(b) for b in buffers if _size(b)]
        length = sum(map(len, views))
        self.stream.send_all([memoryview(_HEADER.pack(*header[:-1], length)), *views])

    def send_at_once(self, header: Header) -> bool:
        """Send a frame without payload if that surely needs no waiting; else False, and nothing is sent.

        Raises:
            ChannelClosed: The connection has ended.
        """
        if not self.stream.takes(_HEADER.size):
            return False
        self.send(header)
        return True

    def send_json(self, header: Header, value: Any) -> None:
        """Send one frame whose payload is ``value`` as JSON."""
        self.send(header, json.dumps(value).encode())

    def receive(self) -> Header:
        """The next frame's header; its payload must be read next, in full."""
        self.stream.receive_into(memoryview(self._header))
        return Header.unpack(self._header)

    def receive_into(self, buffer: bytearray | NDArray[Any]) -> None:
        """Fill ``buffer`` (C-contiguous, writable) with the next bytes of the payload.

        Raises:
            ChannelClosed: The connection ended first.
        """
        if _size(buffer):
            self.stream.receive_into(_bytes_of(buffer))

    def receive_array(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Read a new array of ``shape`` and ``dtype`` from the payload."""
        array = np.empty(shape, dtype)
        self.receive_into(array)
        return array

    def receive_json(self, header: Header) -> Any:
        """Read the whole payload as JSON.

        Raises:
            RunError: It is no JSON, or longer than ``MAX_JSON``.
        """
        if header.length > MAX_JSON:
            raise RunError(f"a JSON payload of {header.length} bytes is above the limit of {MAX_JSON}")
        data = bytearray(header.length)
        self.receive_into(data)
        try:
            return json.loads(data)
        except ValueError as error:
            raise RunError(f"a payload that should be JSON is not: {error}") from error

    def skip(self, length: int) -> None:
        """Read and forget ``length`` bytes of payload."""
        scratch = bytearray(min(length, 1 << 20))
        while length > 0:
            part = memoryview(scratch)[: min(length, len(scratch))]
            self.stream.receive_into(part)
            length -= len(part)

    def close(self) -> None:
        """End the connection; a thread blocked in ``send`` or ``receive`` gets ``ChannelClosed``. Safe to repeat."""
        self.stream.close()


def connect(
    address: tuple[str, int], token: bytes, timeout: float = HANDSHAKE_SECONDS, security: Security | None = None
) -> Channel:
    """Open a channel to a listening peer and authenticate both ways.

    Args:
        address: The peer's host and port.
        token: The secret that both hold.
        timeout: Seconds for each step: to connect, for ``security``, and to authenticate.
        security: Encrypts; both sides have it or neither.

    Raises:
        HandshakeError: The peer answered, but not as one that holds the token.
        ChannelClosed: No connection, or it ended; names the address.
    """
    host, port = address
    try:
        sock = socket.create_connection(address, timeout=timeout)
    except OSError as error:
        raise ChannelClosed(f"cannot reach {host}:{port}: {error}") from error
    try:
        if security is not None:
            sock = security.as_client(sock, timeout)
        _prove_as_client(sock, token, timeout)
    except BaseException:
        sock.close()
        raise
    sock.settimeout(None)
    return Channel(SocketStream(sock) if security is None else security.stream(sock))


def accept(
    sock: socket.socket, token: bytes, timeout: float = HANDSHAKE_SECONDS, security: Security | None = None
) -> Channel:
    """Authenticate a connection just accepted; closes the socket when it fails.

    Nothing of the peer's is read but a greeting and a proof of fixed size, within ``timeout`` seconds in all (and as
    many for ``security``, see ``connect``). A stranger learns no proof of ours: the peer proves itself first.

    Raises:
        HandshakeError, ChannelClosed: The peer is a stranger, of another version, or gone.
    """
    try:
        if security is not None:
            sock = security.as_server(sock, timeout)
        _prove_as_server(sock, token, timeout)
    except BaseException:
        sock.close()
        raise
    sock.settimeout(None)
    return Channel(SocketStream(sock) if security is None else security.stream(sock))


def listen(host: str = "127.0.0.1") -> socket.socket:
    """A listening socket on a free port of ``host``."""
    return socket.create_server((host, 0), backlog=512)


def address_toward(host: str) -> str:
    """This machine's address as seen from ``host``; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))
        return str(probe.getsockname()[0])


def new_token() -> bytes:
    """A fresh shared secret, 32 random bytes."""
    return secrets.token_bytes(32)


def _prove_as_client(sock: socket.socket, token: bytes, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    theirs = _read_greeting(sock, deadline)
    ours = secrets.token_bytes(32)
    _write(sock, deadline, _GREETING.pack(_MAGIC, VERSION, ours) + _proof(token, b"client", theirs, ours))
    answer = _read(sock, deadline, _PROOF_BYTES)
    if not hmac.compare_digest(answer, _proof(token, b"server", theirs, ours)):
        raise HandshakeError("the server does not hold this run's token; it belongs to another run or is a stranger")


def _prove_as_server(sock: socket.socket, token: bytes, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    ours = secrets.token_bytes(32)
    _write(sock, deadline, _GREETING.pack(_MAGIC, VERSION, ours))
    theirs = _read_greeting(sock, deadline)
    answer = _read(sock, deadline, _PROOF_BYTES)
    if not hmac.compare_digest(answer, _proof(token, b"client", ours, theirs)):
        raise HandshakeError("the peer does not hold this run's token")
    _write(sock, deadline, _proof(token, b"server", ours, theirs))


def _read_greeting(sock: socket.socket, deadline: float) -> bytes:
    magic, version, nonce = _GREETING.unpack(_read(sock, deadline, _GREETING.size))
    if magic != _MAGIC:
        raise HandshakeError("the peer does not speak paibook's wire protocol")
    if version != VERSION:
        raise HandshakeError(
            f"the peer speaks version {version} of the wire protocol and this process version {VERSION}; "
            "install the same paibook on every machine"
        )
    return bytes(nonce)


def _proof(token: bytes, role: bytes, server_nonce: bytes, client_nonce: bytes) -> bytes:
    # The role is part of the message, so that a proof cannot be reflected to the side that made it.
    message = _MAGIC + VERSION.to_bytes(2, "little") + role + server_nonce + client_nonce
    return hmac.digest(token, message, "sha256")


def _read(sock: socket.socket, deadline: float, size: int) -> bytes:
    data = b""
    while len(data) < size:
        try:
            sock.settimeout(_left(deadline))
            part = sock.recv(size - len(data))
        except TimeoutError as error:
            raise HandshakeError("the peer did not authenticate in time") from error
        except OSError as error:
            raise ChannelClosed(f"the connection broke: {error}") from error
        if not part:
            raise ChannelClosed("the other side ended the connection while authenticating; it may hold another token")
        data += part
    return data


def _write(sock: socket.socket, deadline: float, data: bytes) -> None:
    try:
        sock.settimeout(_left(deadline))
        sock.sendall(data)
    except TimeoutError as error:
        raise HandshakeError("the peer did not authenticate in time") from error
    except OSError as error:
        raise ChannelClosed(f"the connection broke: {error}") from error


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _size(buffer: Buffer) -> int:
    return buffer.nbytes if isinstance(buffer, np.ndarray) else len(buffer)


def _bytes_of(buffer: Buffer) -> memoryview:
    if isinstance(buffer, np.ndarray):
        buffer = buffer.reshape(-1).view(np.uint8)  # the buffer protocol does not know every type, such as bfloat16
    return memoryview(buffer).cast("B")  # type: ignore[arg-type]  # NumPy's stubs leave the buffer protocol out
