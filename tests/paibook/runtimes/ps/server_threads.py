"""A coordinator and servers as threads of the test's own process, and workers that are connected to them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from paibook.comms import wire
from paibook.errors import RunError
from paibook.program import Program
from paibook.runtimes.ps.client import ParameterServer
from paibook.runtimes.ps.consistency import Consistency
from paibook.runtimes.ps.coordinator import Coordinator
from paibook.runtimes.ps.messages import CoordinatorJob, Scene, ServerJob, Storage, WorkerJob
from paibook.runtimes.ps.server import Server
from paibook.runtimes.ps.service import Service

PLAIN = Storage()
Updates = Mapping[int, Callable[[Any, Any], Any]]  # by server rank


def _add(weight: Any, grad: Any) -> Any:
    return weight + grad


class ServerThreads:
    """The servers of one run; their tables add what is pushed, unless a server's ``updates`` do otherwise."""

    def __init__(
        self,
        consistency: Consistency,
        workers: int,
        servers: int,
        storage: Storage = PLAIN,
        replicas: int = 0,
        updates: Updates | None = None,
    ) -> None:
        token = wire.new_token()
        self._scene = Scene("r", Program(""), {}, {}, workers, servers, consistency, token, replicas=replicas)
        self._listeners = [wire.listen() for _ in range(servers + 1)]
        self._address = self._listeners[0].getsockname()
        coordinator = Coordinator(CoordinatorJob(self._scene), self._listeners[0])
        jobs = [ServerJob(self._scene, rank, self._address, storage=storage) for rank in range(servers)]
        self.servers = [
            Server(job, listener, (updates or {}).get(job.rank, _add))
            for job, listener in zip(jobs, self._listeners[1:], strict=True)
        ]
        self._services: list[Service] = [coordinator, *self.servers]
        self._threads = [threading.Thread(target=self._serve, args=(service,)) for service in self._services]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _serve(service: Service) -> None:
        with contextlib.suppress(RunError):  # the connections' ends
            service.run()

    def connect(self, rank: int) -> ParameterServer:
        return ParameterServer(WorkerJob(self._scene, self._address), rank)

    def end_server(self, rank: int) -> None:
        """Cut a server's connections, as where its process dies."""
        threading.Thread(target=self._services[1 + rank].end, daemon=True).start()

    def wait_for_copies(self) -> None:
        """Until every partition has its backups."""
        coordinator = self._services[0]
        assert isinstance(coordinator, Coordinator)
        end = time.monotonic() + 10
        while (view := coordinator.ledger.view) is None or not all(view.backups):
            assert time.monotonic() < end
            time.sleep(0.01)

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
        for service, thread, listener in zip(self._services, self._threads, self._listeners, strict=True):
            service.end()
            thread.join(10)
            listener.close()
            assert not thread.is_alive()


@contextlib.contextmanager
def serving(
    consistency: Consistency,
    workers: int = 1,
    servers: int = 1,
    storage: Storage = PLAIN,
    replicas: int = 0,
    updates: Updates | None = None,
) -> Iterator[ServerThreads]:
    threads = ServerThreads(consistency, workers, servers, storage, replicas, updates)
    try:
        yield threads
    finally:
        threads.close()


def channels(ps: ParameterServer) -> list[wire.Channel]:
    """A worker's channels to the servers."""
    return [link.channel for link in ps._links._links.values()]
