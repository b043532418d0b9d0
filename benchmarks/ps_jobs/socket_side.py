"""The ceiling for sockets: ``sendall`` and ``recv_into`` over TCP, nothing else."""

from __future__ import annotations

import multiprocessing
import socket
from typing import Any

from numpy.typing import NDArray

from benchmarks.ps_jobs import messages, work


def main() -> None:
    """A server process and this one, the worker."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(listener.getsockname(),))
    server.start()
    sock, _ = listener.accept()
    work.write(messages.measure(*moves(sock)))
    server.join()


def serve(address: tuple[str, int]) -> None:
    """The server's process."""
    messages.serve(*moves(socket.create_connection(address)))


def moves(sock: socket.socket) -> tuple[messages.Move, messages.Move]:
    """How to send and receive over a connected socket."""
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(array: NDArray[Any]) -> None:
        sock.sendall(memoryview(array).cast("B"))

    def receive(array: NDArray[Any]) -> None:
        view = memoryview(array).cast("B")
        while view:
            count = sock.recv_into(view)
            if not count:
                raise ConnectionError("the other side has ended")
            view = view[count:]

    return send, receive


if __name__ == "__main__":
    main()
