"""Dask clusters: the embedded one, and any that exists, by address, scheduler file or object.

Tasks are Dask's own. Ranks are ipyparallel engines that Dask workers start as child processes, each in a session of its
own; the controller they report to belongs to the notebook.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from distributed import Client, LocalCluster, Security

from paibook.clusters import engine_host
from paibook.clusters.contract import Cluster, ClusterStatus, Ranks, Tasks
from paibook.clusters.controller import Controller
from paibook.clusters.dask_tasks import DaskTasks
from paibook.clusters.engine_ranks import Engine, EngineCaller, EngineRanks, connect_client, engine_status
from paibook.clusters.placement import place
from paibook.errors import ClusterError
from paibook.gpus import Device, assign, discover
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
        self._session = uuid.uuid4().hex
        self._lock = threading.RLock()
        self._client: Client | None = None
        self._tasks: DaskTasks | None = None
        self._controller: Controller | None = None
        self._caller: EngineCaller | None = None
        self._engines: dict[str, list[Engine]] = {}
        self._next_engine = 0

    @classmethod
    def of_object(cls, thing: Any) -> DaskCluster:
        """Wrap a Dask client, a Dask cluster, or a function that makes one.

        Raises:
            ClusterError: It is none of these.
        """
        if isinstance(thing, Client):
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
            self._started()
            size = size or self._default_ranks()
            engines = self._engines.setdefault(role, [])
            self._drop_cardless(engines[:size], gpus)
            missing = [rank for rank in range(size) if rank >= len(engines) or engines[rank].lost is not None]
            if missing:
                self._launch(role, engines, missing, size, gpus)
            return EngineRanks(role, self._ready_caller(), engines[:size], self._kill)

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
            free = self._free_slots()
            engines = [engine for group in self._engines.values() for engine in group]
            alive = [engine for engine in engines if engine.lost is None]
            return ClusterStatus(
                self.reference,
                client.scheduler.address,
                len(free),
                sum(self._capacity().values()),
                sum(free.values()),
                [engine_status(engine) for engine in (alive if len(alive) == len(engines) else engines)],
            )

    def restart(self) -> None:
        with self._lock:
            self._stop_ranks()
            self._stop_tasks()
        self.start()

    def close(self) -> None:
        with self._lock:
            self._stop_ranks()
            self._stop_tasks()
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

    # Ranks.

    def _started(self) -> Client:
        self.start()
        assert self._client is not None
        return self._client

    def _ready_caller(self) -> EngineCaller:
        if self._caller is None:
            self._caller = self._make_caller()
        return self._caller

    def _make_caller(self) -> EngineCaller:
        if self._controller is None:
            self._controller = Controller.start(self._controller_ip())
        client = self._started()
        client.subscribe_topic(self._topic, self._on_engine_end)
        client.subscribe_topic("all", self._on_cluster_event)
        return EngineCaller(connect_client(connection_info=self._controller.client_info))

    @property
    def _topic(self) -> str:
        return f"paibook-ranks-{self._session}"

    def _launch(self, role: str, engines: list[Engine], missing: Sequence[int], size: int, gpus: int) -> None:
        held = sum(e.lost is None for group in self._engines.values() for e in group)
        addresses = place(self._free_slots(), len(missing), self.reference, size, held)
        caller = self._ready_caller()
        assert self._controller is not None
        fresh = []
        for rank, address in zip(missing, addresses, strict=True):
            engine = Engine(self._next_engine, role, rank, worker=address)
            self._next_engine += 1
            engines[rank : rank + 1] = [engine]
            fresh.append(engine)
        try:
            cards = self._assign_cards(fresh, gpus)
            for engine in fresh:
                mine = cards.get(engine.id, [])
                engine.pid, engine.cards = self._start_engine(engine, mine), len(mine)
            caller.wait_ready(fresh, settings().start_timeout)
        except BaseException:
            self._kill(fresh)
            for engine in fresh:
                caller.lose(engine, "it did not start")
            raise

    def _drop_cardless(self, engines: Sequence[Engine], gpus: int) -> None:
        """End ranks that have fewer cards than asked for, once it is sure that the cards are there."""
        cardless = [engine for engine in engines if engine.lost is None and engine.cards < gpus]
        if cardless:
            self._assign_cards(cardless, gpus)
            self._kill(cardless)
            for engine in cardless:
                self._ready_caller().lose(engine, "it was replaced by one with GPUs")

    def _assign_cards(self, engines: Sequence[Engine], gpus: int) -> dict[int, list[Device]]:
        """Cards for each engine id, by host; workers of one host see the same cards."""
        if not gpus:
            return {}
        found = self._started().run(_discover_cards, workers=list({engine.worker for engine in engines}))
        cards: dict[int, list[Device]] = {}
        for host in {host for host, _devices in found.values()}:
            here = [engine for engine in engines if found[engine.worker][0] == host]
            devices = next(devices for name, devices in found.values() if name == host)
            for index, mine in assign(devices, len(here), gpus).items():
                cards[here[index].id] = mine
        return cards

    def _start_engine(self, engine: Engine, cards: Sequence[Device]) -> int:
        assert self._controller is not None
        environment = {"PAIBOOK_ROLE": engine.role}
        if cards:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(card.uuid for card in cards)
        message = {
            "id": engine.id,
            "connection": self._controller.engine_info,
            "directory": os.getcwd(),
            "environment": environment,
        }
        started = self._started().run(
            _start_engine, self._session, self._topic, message, workers=[engine.worker], on_error="return"
        )[engine.worker]
        if isinstance(started, BaseException):
            raise ClusterError(f"worker {engine.worker} could not start a rank: {started}") from started
        return int(started)

    def _free_slots(self) -> dict[str, int]:
        capacity = self._capacity()
        used = self._started().run(_count_engines, on_error="ignore")
        return {address: max(0, slots - used[address]) for address, slots in capacity.items() if address in used}

    def _kill(self, engines: Sequence[Engine]) -> None:
        client = self._client
        if client is None:
            return
        for worker in {engine.worker for engine in engines}:
            pids = [engine.pid for engine in engines if engine.worker == worker and engine.pid]
            if worker in client.nthreads():
                client.run(_kill_engines, pids, workers=[worker], on_error="ignore")

    def _on_engine_end(self, event: tuple[Any, Any]) -> None:
        _time, message = event
        for engine in self._all_engines():
            if engine.id == message["id"] and self._caller is not None:
                self._caller.lose(engine, message["cause"])

    def _on_cluster_event(self, event: tuple[Any, Any]) -> None:
        _time, message = event
        if isinstance(message, dict) and message.get("action") == "remove-worker" and self._caller is not None:
            for engine in self._all_engines():
                if engine.worker == message.get("worker"):
                    self._caller.lose(engine, f"its Dask worker {engine.worker} was lost")

    def _all_engines(self) -> list[Engine]:
        return [engine for group in tuple(self._engines.values()) for engine in tuple(group)]

    def _stop_ranks(self) -> None:
        if self._client is not None and self._caller is not None:
            for engine in self._all_engines():
                self._caller.lose(engine, "the cluster was closed")
            self._client.run(_kill_session, self._session, on_error="ignore")
            self._client.unsubscribe_topic(self._topic)
            self._client.unsubscribe_topic("all")
        if self._caller is not None:
            self._caller.close()
        if self._controller is not None:
            self._controller.stop()
        self._caller = self._controller = None
        self._engines.clear()

    def _stop_tasks(self) -> None:
        self._tasks = None


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


# Functions that run on Dask workers; ``dask_worker`` is filled in by Dask.


def _start_engine(session: str, topic: str, message: dict[str, Any], dask_worker: Any = None) -> int:
    return engine_host.start(dask_worker, session, topic, message)


def _discover_cards() -> tuple[str, list[Device]]:
    return socket.gethostname(), discover()


def _count_engines(dask_worker: Any = None) -> int:
    return engine_host.count(dask_worker)


def _kill_engines(pids: Sequence[int], dask_worker: Any = None) -> None:
    engine_host.kill(dask_worker, pids)


def _kill_session(session: str, dask_worker: Any = None) -> None:
    engine_host.kill_session(dask_worker, session)


def _reason(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
