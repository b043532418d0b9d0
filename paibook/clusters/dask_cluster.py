"""Dask clusters: the embedded one, and any that exists, by address, scheduler file or object."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any

import dask.config
from distributed import Client, Security

from paibook.clusters.contract import Cluster, ClusterStatus, Ranks, Tasks, WorkerStatus
from paibook.clusters.controller import Controller
from paibook.clusters.dask_calls import ANSWER_SECONDS, silent
from paibook.clusters.dask_tasks import DaskTasks
from paibook.clusters.engine_launcher import EngineLauncher, free_slots, ranks_held
from paibook.clusters.local_cluster import LastingCluster, WorkerNanny
from paibook.errors import ClusterError, RankLost
from paibook.resources import CardChoice, Placement
from paibook.settings import settings

_UNPROFILED = {"distributed": {"worker": {"profile": {"enabled": False}}}}
logger = logging.getLogger(__name__)


class DaskCluster(Cluster):
    """An existing Dask cluster.

    Args:
        reference: Address of the scheduler, or path of a scheduler file.
        client_factory: Makes the connected client instead, for clusters given as objects.
        owns_client: Whether ``close`` closes the client.
    """

    def __init__(
        self, reference: str, client_factory: Callable[[], Client] | None = None, owns_client: bool = True
    ) -> None:
        self.reference = reference
        self.portable = client_factory is None
        self._client_factory = client_factory
        self._owns_client = owns_client
        self._lock = threading.RLock()
        self._client: Client | None = None
        self._connection: Any = None
        self._tasks: DaskTasks | None = None
        self._controller: Controller | None = None
        self._launcher: EngineLauncher | None = None
        self._losses: dict[str, list[RankLost]] = {}

    @classmethod
    def of_object(cls, thing: Any) -> DaskCluster:
        """Wrap a Dask client, a Dask cluster, or a function that makes one.

        Raises:
            ClusterError: It is none of these.
        """
        if getattr(thing, "asynchronous", False) is True:
            raise ClusterError(
                f"the {type(thing).__name__} is asynchronous; give one made without asynchronous=True, or its "
                "scheduler's address"
            )
        if isinstance(thing, Client):
            if thing.scheduler is None:
                raise ClusterError("the Dask client is closed; give one that is connected, or its scheduler's address")
            return cls(thing.scheduler.address, lambda: thing, owns_client=False)
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
            if self._client is not None and not self._connected(self._client):
                self._forsake("the connection to its Dask scheduler was lost")
            if self._client is None:
                self._client = self._connect()
                self._connection = self._client.scheduler_comm

    def tasks(self) -> Tasks:
        with self._lock:
            if self._tasks is None:
                self._tasks = DaskTasks(self._started())
            return self._tasks

    def ranks(
        self,
        size: int,
        role: str = "worker",
        gpus: int = 0,
        placement: Placement = "spread",
        cards: CardChoice = CardChoice(),
    ) -> Ranks:
        with self._lock:
            client = self._started()
            size = size or self._present_ranks(role) or self._default_ranks()
            if self._launcher is None:
                self._launcher = EngineLauncher(
                    self.reference, client, self._capacity, self._started_controller, self._losses
                )
            self._make_room(self._launcher.missing(size, role))
            return self._launcher.ranks(size, role, gpus, placement, cards)

    def without_lost(self, most: int, role: str = "worker") -> Ranks:
        with self._lock:
            if self._launcher is None:
                return super().without_lost(most, role)
            return self._launcher.without_lost(most, role)

    def sibling(self) -> DaskCluster:
        return _Sibling(self)

    def scale(self, workers: int) -> None:
        cluster = self._started().cluster
        if cluster is None:
            raise ClusterError(
                f"{self.reference} is not paibook's to scale: add or remove workers where it was started"
            )
        surplus = len(self._started().nthreads()) - workers
        if surplus > 0 and hasattr(cluster, "worker_spec"):
            self._retire(surplus)
            return
        cluster.scale(workers)
        timeout = settings().start_timeout
        try:
            self._started().wait_for_workers(workers, timeout=timeout)
        except TimeoutError as error:  # a queue of jobs may need longer: they come when they come
            there = len(self._started().nthreads())
            raise ClusterError(
                f"{self.reference} was asked for {workers} workers and has {there} after {timeout:.0f} s; the others "
                "may still come. PAIBOOK_START_TIMEOUT sets how long to wait"
            ) from error

    def _retire(self, count: int) -> None:
        """End workers, those that hold the fewest ranks; what ranks are lost, ``status`` says."""
        with self._lock:
            client = self._started()
            held = ranks_held(client)
            leaving = sorted(client.nthreads(), key=lambda worker: held.get(worker, 0))[:count]
            if self._launcher is not None:
                self._launcher.retire(leaving)
            names = [info["name"] for worker, info in client.scheduler_info(-1)["workers"].items() if worker in leaving]
            client.cluster.sync(client.cluster.scale_down, names)

    def status(self) -> ClusterStatus:
        with self._lock:
            client = self._started()
            capacity = self._capacity()
            free = free_slots(client, capacity)
            ranks = self._launcher.status() if self._launcher is not None else []
            address = client.scheduler.address
            slots, left = sum(capacity.values()), sum(free.values())
            return ClusterStatus(self.reference, address, len(free), slots, left, ranks, _members(client))

    def started(self) -> bool:
        return self._client is not None

    def restart(self) -> None:
        """Of a cluster that is not ours, only our ranks and tasks are dropped."""
        with self._lock:
            self.start()
            self._tasks = None
            self._stop_ranks()
            self._losses.clear()  # whoever restarts knows

    def close(self) -> None:
        with self._lock:
            client, self._client, self._tasks = self._client, None, None
            self._losses.clear()
            try:
                self._stop_ranks()
            except ClusterError:
                # Closing goes on: the ranks end with their controller, which is gone by now.
                logger.warning("the ranks on %s could not be asked to end", self.reference, exc_info=True)
            finally:
                if client is not None:
                    self._disconnect(client)

    # What an embedded cluster does differently.

    def _connect(self) -> Client:
        if self._client_factory is not None:
            return self._client_of_object(self._client_factory)
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

    def _client_of_object(self, factory: Callable[[], Client]) -> Client:
        try:
            client = factory()
        except (OSError, TimeoutError, RuntimeError) as error:
            raise ClusterError(
                f"the Dask cluster object at {self.reference} does not answer ({_reason(error)}); attach one that runs"
            ) from error
        if client.status != "running":
            raise ClusterError(f"the Dask client of {self.reference} is {client.status}; attach one that is connected")
        return client

    def _disconnect(self, client: Client) -> None:
        if self._owns_client:
            client.close()

    def _connected(self, client: Client) -> bool:
        # A client that came back by itself has lost its tasks and subscriptions, and may speak to another scheduler.
        return client.status == "running" and client.scheduler_comm is self._connection

    def _forsake(self, cause: str) -> None:
        """Drop what hung on a connection that is lost."""
        client, launcher, controller = self._client, self._launcher, self._controller
        self._client = self._tasks = self._launcher = self._controller = None
        try:
            if launcher is not None:
                launcher.forsake(cause)
        finally:
            if controller is not None:
                controller.stop()
        if client is not None:
            self._disconnect(client)

    def _capacity(self) -> dict[str, int]:
        """Ranks each worker may hold: one a thread."""
        return dict(self._started().nthreads())

    def _present_ranks(self, role: str) -> int:
        return sum(rank.role == role for rank in self._launcher.status()) if self._launcher is not None else 0

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
        launcher, controller = self._launcher, self._controller
        self._launcher = self._controller = None
        try:
            if launcher is not None:
                launcher.stop()
        finally:
            if controller is not None:
                controller.stop()


class _Sibling(DaskCluster):
    """Ranks of their own on another's workers, through the other's client."""

    def __init__(self, other: DaskCluster) -> None:
        super().__init__(other.reference, other._started, owns_client=False)
        self._other = other

    def _capacity(self) -> dict[str, int]:
        return self._other._capacity()

    def _make_room(self, missing: int) -> None:
        """Whoever asks for a sibling has counted what is free."""


class EmbeddedCluster(DaskCluster):
    """A Dask cluster of processes on this machine, started on first use: TLS with throw-away keys, loopback only.

    Args:
        workers: Worker processes; the setting ``PAIBOOK_WORKERS`` by default.
    """

    def __init__(self, workers: int | None = None) -> None:
        super().__init__("embedded")
        self._controller_starts = threading.Lock()
        self._made: Future[Client] | None = None
        self._workers = workers or settings().workers

    def _connect(self) -> Client:
        if self._made is None:
            self._made = Future()
            # The controller of the ranks takes as long to start as the workers do: side by side.
            threading.Thread(target=self._start_controller, daemon=True).start()
            # In a thread, since Stop in the middle of Dask's own start would leave half a cluster behind.
            threading.Thread(target=_fulfil, args=(self._made, self._start_dask), daemon=True).start()
        made = self._made
        try:
            client = made.result()  # where Stop ends this wait, the next start waits for the same cluster
        except (OSError, TimeoutError, RuntimeError) as error:
            raise ClusterError(f"the embedded cluster did not start: {_reason(error)}") from error
        finally:
            if made.done() and made.exception() is not None:
                self._made = None
        self._made = None
        self._start_controller()
        return client

    def _start_dask(self) -> Client:
        with _deaf_to_stop():
            cluster = LastingCluster(
                n_workers=self._workers,
                threads_per_worker=1,
                worker_class=WorkerNanny,
                host="127.0.0.1",
                protocol="tls://",
                security=Security.temporary(),
                dashboard_address=None,
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                silence_logs=logging.CRITICAL + 1,
                preload=["paibook.clusters.worker_preload"],
                # Its own profiler stops a task a hundred times a second, for a page that is not served.
                config=dask.config.merge(dask.config.config, _UNPROFILED),
            )
            # Dask serves pages and figures over plain HTTP to whoever asks; ours needs none of it.
            cluster.scheduler.http_server.stop()
            return Client(cluster, set_as_default=False)

    def _discard(self, made: Future[Client]) -> None:
        # From a thread of its own: this one may be Dask's.
        if made.exception() is None:
            threading.Thread(target=self._disconnect, args=(made.result(),), daemon=True).start()

    def _start_controller(self) -> None:
        with self._controller_starts:
            if self._controller is not None:
                return
            try:
                self._controller = Controller.start()
            except ClusterError:
                logger.debug("the controller did not start", exc_info=True)  # the first ranks try again, and report

    def restart(self) -> None:
        """Start anew, with fresh processes; workers that are stuck are killed."""
        with self._lock:
            self.close()
            self.start()

    def close(self) -> None:
        with self._lock:
            made, self._made = self._made, None
            if made is not None:
                made.add_done_callback(self._discard)
            if self._client is not None and self._connected(self._client):
                _kill_silent(self._client)
            super().close()

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


def _fulfil(future: Future[Client], make: Callable[[], Client]) -> None:
    try:
        future.set_result(make())
    except BaseException as error:  # raised again where the result is waited for
        future.set_exception(error)


@contextmanager
def _deaf_to_stop() -> Iterator[None]:
    """Block Stop's signal in this thread and in what it starts: new workers share the notebook's process group."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # where it starts later, it unblocks the signal again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kill_silent(client: Client) -> None:
    """Kill the worker processes of a local cluster that do not answer: closing would wait for them."""
    mute = set(silent(client))
    for nanny in client.cluster.workers.values():
        if nanny.worker_address in mute and nanny.pid:
            nanny.auto_restart = False
            os.kill(nanny.pid, signal.SIGKILL)


def _reason(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


def _members(client: Client) -> list[WorkerStatus]:
    """What the workers said with their last heartbeats; none where the scheduler does not answer."""
    try:
        told = client.sync(client.scheduler.identity, n_workers=-1, callback_timeout=ANSWER_SECONDS)
    except (OSError, TimeoutError):  # it was just lost, which the next call to it says
        return []
    found = []
    for address, worker in told["workers"].items():
        said = worker.get("metrics", {})
        tasks = said.get("task_counts", {})
        waiting = sum(count for state, count in tasks.items() if state in ("ready", "constrained", "waiting"))
        limit = int(worker.get("memory_limit") or 0)
        found.append(WorkerStatus(address, int(said.get("memory", 0)), limit, tasks.get("executing", 0), waiting))
    return found
