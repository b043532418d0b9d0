"""Servers as threads of the test's own process, and workers that talk to them through sockets."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from paibook.comms import wire
from paibook.errors import RunError
from paibook.program import Program
from paibook.runtimes.ps.client import ParameterServer
from paibook.runtimes.ps.consistency import Consistency
from paibook.runtimes.ps.messages import Scene, ServerJob
from paibook.runtimes.ps.server import Server


class ServerThreads:
    """The servers of one run; their tables add what is pushed."""

    def __init__(self, consistency: Consistency, workers: int, servers: int) -> None:
        self._scene = Scene("r", Program(""), {}, {}, workers, servers, consistency, wire.new_token())
        self._listeners = [wire.listen() for _ in range(servers)]
        self.servers = [
            Server(ServerJob(self._scene, rank), listener, lambda weight, grad: weight + grad)
            for rank, listener in enumerate(self._listeners)
        ]
        self._threads = [threading.Thread(target=self._serve, args=(server,)) for server in self.servers]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _serve(server: Server) -> None:
        with contextlib.suppress(RunError):  # the connections' ends
            server.run()

    def connect(self, rank: int) -> ParameterServer:
        addresses = [listener.getsockname() for listener in self._listeners]
        scene = self._scene
        return ParameterServer.connect(rank, scene.world_size, addresses, scene.token, consistency=scene.consistency)

    def train(self, train: Callable[[ParameterServer], Any]) -> list[Any]:
        """Run a function on every worker; what each returns."""

        def work(rank: int) -> Any:
            with contextlib.closing(self.connect(rank)) as ps:
                try:
                    returned = train(ps)
                    ps.retire()
                    return returned
                except BaseException:
                    self.close()  # nobody shall wait for this worker
                    raise

        with ThreadPoolExecutor(self._scene.world_size) as pool:
            return list(pool.map(work, range(self._scene.world_size)))

    def close(self) -> None:
        for server, thread, listener in zip(self.servers, self._threads, self._listeners, strict=True):
            server.end()
            thread.join(10)
            listener.close()
            assert not thread.is_alive()


@contextlib.contextmanager
def serving(consistency: Consistency, workers: int = 1, servers: int = 1) -> Iterator[ServerThreads]:
    threads = ServerThreads(consistency, workers, servers)
    try:
        yield threads
    finally:
        threads.close()
