"""Channels inside TLS 1.3 (RFC 8446), for processes of different hosts, with a certificate made for one run.

Both sides show the run's one certificate and accept no other, so names, validity of names and authorities play no part.
The token is proved inside, as everywhere.
"""

from __future__ import annotations

import datetime
import os
import select
import socket
import ssl
import tempfile
import threading
from dataclasses import dataclass, field
from functools import cached_property

from paibook.comms.wire import ChannelClosed, HandshakeError

CHUNK_BYTES = 1 << 18  # sent under the lock at once, while nobody can receive
SMALL_BYTES = 1 << 14  # what is shorter is joined: a record holds as much (RFC 8446, section 5.1)
WAIT_SECONDS = 1.0  # a socket closed by another thread may be waited for this long


@dataclass(frozen=True)
class RunCertificate:
    """A run's certificate and its key; whoever has it can take part.

    Attributes:
        certificate: PEM.
        key: PEM, not encrypted; a secret.
    """

    certificate: bytes = field(repr=False)
    key: bytes = field(repr=False)

    @classmethod
    def new(cls) -> RunCertificate:
        """A fresh one: ECDSA over P-256, signed by itself."""
        from cryptography import x509  # slow to import, and only the driver of a run over several hosts needs it
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID

        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "paibook run")])
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=2))  # other hosts' clocks may be slow
            .not_valid_after(now + datetime.timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return cls(made.public_bytes(pem), secret)

    def as_client(self, sock: socket.socket, timeout: float) -> ssl.SSLSocket:
        """Begin TLS on the connecting side; the socket given is used up.

        Raises:
            HandshakeError, ChannelClosed: The peer is of another run, does not speak TLS, or is gone.
        """
        return self._begin(self._client.wrap_socket(sock, do_handshake_on_connect=False), timeout)

    def as_server(self, sock: socket.socket, timeout: float) -> ssl.SSLSocket:
        """Begin TLS on the accepting side; see ``as_client``."""
        return self._begin(self._server.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), timeout)

    def stream(self, sock: socket.socket) -> TlsStream:
        """What a channel is made over."""
        assert isinstance(sock, ssl.SSLSocket)
        return TlsStream(sock)

    def _begin(self, sock: ssl.SSLSocket, timeout: float) -> ssl.SSLSocket:
        try:
            sock.settimeout(timeout)
            sock.do_handshake()
            if sock.getpeercert(binary_form=True) != ssl.PEM_cert_to_DER_cert(self.certificate.decode()):
                raise HandshakeError("the peer's certificate is not this run's; it belongs to another run")
        except TimeoutError as error:
            sock.close()
            raise HandshakeError("the peer did not begin TLS in time; it may not speak it") from error
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            sock.close()
            raise ChannelClosed("the other side ended the connection while authenticating") from error
        except ssl.SSLError as error:
            sock.close()
            raise HandshakeError(
                f"the peer does not speak TLS, or does not hold this run's certificate: {error.reason or error}"
            ) from error
        except OSError as error:
            sock.close()
            raise ChannelClosed(f"the connection broke: {error}") from error
        except BaseException:
            sock.close()
            raise
        return sock

    @cached_property
    def _client(self) -> ssl.SSLContext:
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    @cached_property
    def _server(self) -> ssl.SSLContext:
        return self._context(ssl.PROTOCOL_TLS_SERVER)

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self.certificate.decode())
        if protocol == ssl.PROTOCOL_TLS_SERVER:
            context.num_tickets = 0  # nobody resumes, and unread tickets would reset connections that end
        descriptor, path = tempfile.mkstemp()  # for its owner alone; ``ssl`` reads keys from files only
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(self.certificate + self.key)
            context.load_cert_chain(path)
        finally:
            os.unlink(path)
        return context

    def __getstate__(self) -> dict[str, bytes]:
        return {"certificate": self.certificate, "key": self.key}  # contexts stay in their process


class TlsStream:
    """A stream through a TLS connection. One thread may send while another receives.

    OpenSSL does not allow two threads in one connection, so calls take turns under a lock and never wait in it.
    """

    yields_seconds = 0.0

    def __init__(self, sock: ssl.SSLSocket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        self._socket = sock
        self._lock = threading.Lock()
        self._closed = False

    def send_all(self, views: list[memoryview]) -> None:
        """See ``Stream``."""
        small = bytearray()
        for view in views:
            if len(small) + len(view) <= SMALL_BYTES:
                small += view
                continue
            self._send(memoryview(small))
            small = bytearray()
            for start in range(0, len(view), CHUNK_BYTES):
                self._send(view[start : start + CHUNK_BYTES])
        self._send(memoryview(small))

    def takes(self, size: int) -> bool:
        """See ``Stream``."""
        return False

    def receive_into(self, view: memoryview) -> None:
        """See ``Stream``."""
        while view:
            count = self._receive(view)
            if count is None:
                continue
            if count == 0:
                raise ChannelClosed("the other side ended the connection")
            view = view[count:]

    def close(self) -> None:
        """See ``Stream``."""
        try:
            # Not the SSLSocket's own, after which a thread that receives would be given what is still encrypted.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        except OSError:
            pass  # the other side was first
        with self._lock:
            self._closed = True
            self._socket.close()

    def waited(self, seconds: float) -> None:
        """See ``Stream``."""

    def at_hand(self) -> bool:
        """See ``Stream``."""
        with self._lock:
            return not self._closed and self._socket.pending() > 0

    def before_poll(self) -> bool:
        """See ``Stream``."""
        return self.at_hand()

    def after_poll(self) -> bool:
        """See ``Stream``."""
        return True

    def fileno(self) -> int:
        """See ``Stream``."""
        return self._socket.fileno()

    def bare_socket(self) -> socket.socket:
        """The TCP connection below, which the stream gives up; between frames only."""
        with self._lock:
            self._closed = True
            return socket.socket(fileno=self._socket.detach())

    def _send(self, view: memoryview) -> None:
        while view:
            events = select.POLLOUT
            with self._lock:
                self._check_open()
                try:
                    view = view[self._socket.send(view) :]
                    continue
                except ssl.SSLWantReadError:
                    events = select.POLLIN
                except ssl.SSLWantWriteError:
                    pass
                except (OSError, ValueError) as error:
                    raise ChannelClosed(f"the connection broke: {error}") from error
            self._wait(events)

    def _receive(self, view: memoryview) -> int | None:
        events = select.POLLIN
        with self._lock:
            self._check_open()
            try:
                return self._socket.recv_into(view)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLWantWriteError:
                events = select.POLLOUT
            except (OSError, ValueError) as error:
                raise ChannelClosed(f"the connection broke: {error}") from error
        self._wait(events)
        return None

    def _check_open(self) -> None:
        if self._closed:
            raise ChannelClosed("this side has ended the connection")

    def _wait(self, events: int) -> None:
        poll = select.poll()
        try:
            poll.register(self._socket.fileno(), events)
            poll.poll(WAIT_SECONDS * 1000)
        except (OSError, ValueError):
            pass  # closed by another thread meanwhile; the next call tells
