"""Dask clusters: the embedded one, and any that exists, by address, scheduler file or object."""

from __future__ import annotations

import logging
import math
import socket
import threading
from collections.abc import Callable
from typing import Any

from distributed import Client, LocalCluster, Security

from paibook.clusters.contract import Cluster, ClusterStatus, Ranks, Tasks
from paibook.clusters.controller import Controller
from paibook.clusters.dask_tasks import DaskTasks
from paibook.clusters.engine_launcher import EngineLauncher, free_slots
from paibook.errors import ClusterError
from paibook.settings import settings


class DaskCluster(Cluster):
    """An existing Dask cluster.

    Args:
        reference: Address of the scheduler, or path of a scheduler file.
        client_factory: Makes the connected client instead, for clusters given as objects.
    """

    def __init__(self, reference: str, client_factory: Callable[[], Client] | None = None) -> None:
        self.reference = reference
        self._client_factory = client_factory
        self._lock = threading.RLock()
        self._client: Client | None = None
        self._tasks: DaskTasks | None = None
        self._controller: Controller | None = None
        self._launcher: EngineLauncher | None = None

    @classmethod
    def of_object(cls, thing: Any) -> DaskCluster:
        """Wrap a Dask client, a Dask cluster, or a function that makes one.

        Raises:
            ClusterError: It is none of these.
        """
        if isinstance(thing, Client):
            if thing.scheduler is None:
                raise ClusterError("the Dask client is closed; give one that is connected, or its scheduler's address")
            return cls(thing.scheduler.address, lambda: thing)
        if hasattr(thing, "scheduler_address"):
            return cls(str(thing.scheduler_address), lambda: Client(thing, set_as_default=False))
        if callable(thing):
            made = thing()
            if not callable(made):
                return cls.of_object(made)
        raise ClusterError(
            f"a {type(thing).__name__} is not a cluster; give a Dask cluster or client object, a function that makes "
            "one, or a reference such as tcp://HOST:8786"
        )

    def start(self) -> None:
        with self._lock:
            if self._client is None:
                self._client = self._connect()

    def tasks(self) -> Tasks:
        with self._lock:
            if self._tasks is None:
                self._tasks = DaskTasks(self._started())
            return self._tasks

    def ranks(self, size: int, role: str = "worker", gpus: int = 0) -> Ranks:
        with self._lock:
            client = self._started()
            size = size or self._default_ranks()
            if self._launcher is None:
                self._launcher = EngineLauncher(self.reference, client, self._capacity, self._started_controller)
            self._make_room(self._launcher.missing(size, role))
            return self._launcher.ranks(size, role, gpus)

    def scale(self, workers: int) -> None:
        cluster = self._started().cluster
        if cluster is None:
            raise ClusterError(
                f"{self.reference} is not paibook's to scale: add or remove workers where it was started"
            )
        cluster.scale(workers)
        self._started().wait_for_workers(workers, timeout=settings().start_timeout)

    def status(self) -> ClusterStatus:
        with self._lock:
            client = self._started()
            capacity = self._capacity()
            free = free_slots(client, capacity)
            ranks = self._launcher.status() if self._launcher is not None else []
            address = client.scheduler.address
            return ClusterStatus(self.reference, address, len(free), sum(capacity.values()), sum(free.values()), ranks)

    def restart(self) -> None:
        with self._lock:
            self._stop_ranks()
            self._tasks = None
        self.start()

    def close(self) -> None:
        with self._lock:
            self._stop_ranks()
            self._tasks = None
            if self._client is not None:
                self._disconnect(self._client)
            self._client = None

    # What an embedded cluster does differently.

    def _connect(self) -> Client:
        if self._client_factory is not None:
            return self._client_factory()
        timeout = min(settings().start_timeout, 10.0)
        by_file = "://" not in self.reference
        where = {"scheduler_file": self.reference} if by_file else {"address": self.reference}
        quiet = logging.getLogger("distributed")
        level = quiet.level
        quiet.setLevel(logging.CRITICAL)  # the error below says it once, and what to do
        try:
            return Client(**where, timeout=timeout, set_as_default=False)
        except (OSError, TimeoutError, ValueError, TypeError) as error:
            raise ClusterError(
                f"no Dask scheduler answers at {self.reference} (tried for {timeout:.0f} s: {_reason(error)}). Is it "
                "running, reachable from here, and of the same security (tcp:// or tls://)? "
                "Start one with `dask scheduler`, or leave out the address to use the embedded cluster."
            ) from error
        finally:
            quiet.setLevel(level)

    def _disconnect(self, client: Client) -> None:
        if self._client_factory is None:
            client.close()

    def _capacity(self) -> dict[str, int]:
        """Ranks each worker may hold: one a thread."""
        return dict(self._started().nthreads())

    def _default_ranks(self) -> int:
        return max(1, len(self._capacity()))

    def _controller_ip(self) -> str:
        """Address of this machine as the workers see it."""
        host = self._started().scheduler.address.partition("://")[2].rpartition(":")[0].strip("[]")
        if not host or host in ("127.0.0.1", "localhost", "::1"):
            return "127.0.0.1"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))  # sends nothing; asks the routing table for our side
            return str(probe.getsockname()[0])

    def _make_room(self, missing: int) -> None:
        """Scale a cluster that was given as an object, when the ranks asked for do not fit."""
        client = self._started()
        if not missing or self._client_factory is None or client.cluster is None:
            return
        capacity = self._capacity()
        short = missing - sum(free_slots(client, capacity).values())
        workers = len(capacity) + math.ceil(short / max(1, *capacity.values(), 1))
        if short > 0 and workers <= settings().max_workers:
            self.scale(workers)

    def _started(self) -> Client:
        self.start()
        assert self._client is not None
        return self._client

    def _started_controller(self) -> Controller:
        if self._controller is None:
            self._controller = Controller.start(self._controller_ip())
        return self._controller

    def _stop_ranks(self) -> None:
        if self._launcher is not None:
            self._launcher.stop()
        if self._controller is not None:
            self._controller.stop()
        self._launcher = self._controller = None


class EmbeddedCluster(DaskCluster):
    """A Dask cluster of processes on this machine, started on first use: TLS with throw-away keys, loopback only.

    Args:
        workers: Worker processes; the setting ``PAIBOOK_WORKERS`` by default.
    """

    def __init__(self, workers: int | None = None) -> None:
        super().__init__("embedded")
        self._workers = workers or settings().workers

    def _connect(self) -> Client:
        # The controller of the ranks takes as long to start as the workers do: side by side.
        starting = threading.Thread(target=self._start_controller, daemon=True)
        starting.start()
        try:
            cluster = LocalCluster(
                n_workers=self._workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                protocol="tls://",
                security=Security.temporary(),
                dashboard_address=None,
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                silence_logs=logging.CRITICAL + 1,
                preload=["paibook.clusters.worker_preload"],
            )
            # Dask serves pages and figures over plain HTTP to whoever asks; ours needs none of it.
            cluster.scheduler.http_server.stop()
            client = Client(cluster, set_as_default=False)
        except (OSError, TimeoutError, RuntimeError) as error:
            raise ClusterError(f"the embedded cluster did not start: {_reason(error)}") from error
        finally:
            starting.join()
        return client

    def _start_controller(self) -> None:
        try:
            self._controller = Controller.start()
        except ClusterError:
            self._controller = None  # the first ranks try again, and report

    def _disconnect(self, client: Client) -> None:
        cluster = client.cluster
        client.close()
        cluster.close()

    def _capacity(self) -> dict[str, int]:
        """A laptop may hold more ranks than cores: teaching needs four ranks on two."""
        addresses = sorted(self._started().nthreads())
        most = max(settings().max_workers, len(addresses))
        return {a: most // len(addresses) + (i < most % len(addresses)) for i, a in enumerate(addresses)}

    def scale(self, workers: int) -> None:
        if workers > settings().max_workers:
            raise ClusterError(
                f"the embedded cluster grows to {settings().max_workers} workers (PAIBOOK_MAX_WORKERS); "
                f"asked for {workers}"
            )
        super().scale(workers)


def _reason(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
