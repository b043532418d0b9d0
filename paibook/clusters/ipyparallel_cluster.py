"""An existing ipyparallel cluster: its engines are the ranks, and become Dask workers when tasks are wanted."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ipyparallel
from distributed import Client, LocalCluster, Security

from paibook.clusters.contract import Cluster, ClusterStatus, Place, Ranks, Tasks
from paibook.clusters.dask_tasks import DaskTasks
from paibook.clusters.engine_place import Packed
from paibook.clusters.engine_ranks import Engine, EngineCaller, EngineRanks, connect_client, drop_lost, engine_status
from paibook.errors import ClusterError, PlanError
from paibook.resources import CardChoice, Placement
from paibook.settings import settings


class IpyparallelCluster(Cluster):
    """The engines of a running ``ipcluster``, one rank each.

    Ranks of the role ``worker`` take the engines with the lowest ids, every other role those with the highest.

    Args:
        reference: ``"ipyparallel"``, ``"ipyparallel:PROFILE"`` or the path of a client connection file.
    """

    def __init__(self, reference: str) -> None:
        self.reference = reference
        self._lock = threading.RLock()
        self._caller: EngineCaller | None = None
        self._engines: dict[str, list[Engine]] = {}
        self._lost: set[int] = set()
        self._dask: tuple[LocalCluster, Client, DaskTasks] | None = None

    def start(self) -> None:
        with self._lock:
            if self._caller is None:
                self._caller = EngineCaller(self._connect())

    def tasks(self) -> Tasks:
        with self._lock:
            if self._dask is None:
                self._dask = self._become_dask()
            return self._dask[2]

    def ranks(
        self,
        size: int,
        role: str = "worker",
        gpus: int = 0,
        placement: Placement = "spread",
        cards: CardChoice = CardChoice(),
    ) -> Ranks:
        with self._lock:
            caller = self._started()
            if gpus:
                raise PlanError(
                    "-g cannot be kept on an ipyparallel cluster: its engines run already, with the cards they were "
                    "started with; set CUDA_VISIBLE_DEVICES where they are started, and leave out -g"
                )
            if placement != "spread":
                raise PlanError(
                    f"--placement {placement} cannot be kept on an ipyparallel cluster: its engines run already, where "
                    "they were started"
                )
            engines = self._engines.setdefault(role, [])
            room = max(1, len(caller.client.ids) - self._count_others(role))
            size = size or min(len(engines) or room, room)
            self._drop_lost(engines)
            self._claim(role, engines, size)
            return EngineRanks(role, caller, engines[:size], self._kill)

    def without_lost(self, most: int, role: str = "worker") -> Ranks:
        with self._lock:
            engines = self._engines.setdefault(role, [])
            self._drop_lost(engines)
            self._lost |= {engine.id for engine in engines if engine.lost is not None}
            drop_lost(engines, self.reference)
            return EngineRanks(role, self._started(), engines[:most], self._kill)

    def scale(self, workers: int) -> None:
        raise ClusterError(
            f"{self.reference} is not paibook's to scale: add engines with `ipengine` or `ipcluster engines` "
            "where it was started"
        )

    def status(self) -> ClusterStatus:
        with self._lock:
            ids = self._started().client.ids
            engines = [engine for group in self._engines.values() for engine in group]
            alive = [engine for engine in engines if engine.lost is None and engine.id in ids]
            return ClusterStatus(
                self.reference,
                f"{len(ids)} ipyparallel engines",
                len(ids),
                len(ids),
                len(ids) - len(alive),
                [engine_status(engine) for engine in engines],
            )

    def restart(self) -> None:
        with self._lock:
            caller = self._started()
            self._stop_dask()
            caller.client.clear(block=True)
            self._engines.clear()

    def close(self) -> None:
        with self._lock:
            self._stop_dask()
            if self._caller is not None:
                for engine in [engine for group in self._engines.values() for engine in group]:
                    self._caller.lose(engine, "the cluster was closed")
                self._caller.close()
            self._caller = None
            self._engines.clear()

    def _started(self) -> EngineCaller:
        self.start()
        assert self._caller is not None
        return self._caller

    def _connect(self) -> ipyparallel.Client:
        _kind, _, name = self.reference.partition(":")
        where: dict[str, Any] = {}
        if self.reference.endswith(".json"):
            where["connection_info"] = str(Path(self.reference).expanduser())
        elif name:
            where["profile"] = name
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                client = connect_client(timeout=min(settings().start_timeout, 10.0), **where)
        except (OSError, TimeoutError, ValueError) as error:
            raise ClusterError(
                f"no ipyparallel controller answers for {self.reference} ({str(error).splitlines()[0]}). "
                "Start one with `ipcluster start -n 2`, or give the path of its ipcontroller-client.json."
            ) from error
        if not client.ids:
            try:
                client.wait_for_engines(1, timeout=settings().start_timeout, interactive=False)
            except TimeoutError as error:
                client.close()
                raise ClusterError(
                    f"the ipyparallel cluster {self.reference} has no engines: start some with `ipengine`"
                ) from error
        return client

    def _count_others(self, role: str) -> int:
        return sum(len(group) for other, group in self._engines.items() if other != role)

    def _drop_lost(self, engines: list[Engine]) -> None:
        ids = self._started().client.ids
        for engine in engines:
            if engine.id not in ids:
                self._started().lose(engine, "its engine left the cluster")

    def _claim(self, role: str, engines: list[Engine], size: int) -> None:
        caller = self._started()
        claimed = [engine for group in self._engines.values() for engine in group]
        # The controller may take a while to notice that an engine has died.
        self._lost |= {engine.id for engine in claimed if engine.lost is not None}
        used = self._lost | {engine.id for engine in claimed}
        missing = [rank for rank in range(size) if rank >= len(engines) or engines[rank].lost is not None]
        free = sorted((i for i in caller.client.ids if i not in used), reverse=role != "worker")
        if len(missing) > len(free):
            raise ClusterError(
                f"not enough room for ranks on {self.reference}: {size} asked for, {len(free)} of its "
                f"{len(caller.client.ids)} engines free; ask for fewer with -n, or add engines with `ipengine`"
            )
        fresh = [Engine(engine_id, role, rank) for rank, engine_id in zip(missing, free, strict=False)]
        caller.wait_ready(fresh, settings().start_timeout)
        for engine in fresh:
            engines[engine.rank : engine.rank + 1] = [engine]

    def _kill(self, engines: Sequence[Engine]) -> None:
        here = socket.gethostname()
        for engine in engines:
            if engine.host == here and engine.pid:
                _kill_process(engine.pid)
            else:
                # Elsewhere, the engine's own nanny is asked to do it.
                self._started().client.send_signal(signal.SIGKILL, targets=[engine.id], block=False)

    def _become_dask(self) -> tuple[LocalCluster, Client, DaskTasks]:
        # ipyparallel's own become_dask starts a scheduler without authentication; this one speaks TLS, and its keys
        # reach the engines over their authenticated channel.
        caller = self._started()
        security = Security.temporary()
        cluster = LocalCluster(
            n_workers=0,
            processes=False,
            protocol="tls://",
            host="127.0.0.1",
            security=security,
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
            silence_logs=logging.CRITICAL + 1,
        )
        cluster.scheduler.http_server.stop()
        client = Client(cluster, set_as_default=False)
        hosts = [Engine(i, "task worker", n) for n, i in enumerate(caller.client.ids)]
        packed = Packed.of(_start_dask_worker, (cluster.scheduler_address, security))
        for engine, future in zip(hosts, caller.call(hosts, packed), strict=True):
            try:
                future.result(settings().start_timeout)
            except TimeoutError as error:
                raise ClusterError(f"engine {engine.id} is busy and cannot become a Dask worker") from error
        client.wait_for_workers(len(hosts), timeout=settings().start_timeout)
        return cluster, client, DaskTasks(client)

    def _stop_dask(self) -> None:
        if self._dask is not None:
            cluster, client, _tasks = self._dask
            client.close()
            cluster.close()
        self._dask = None


def _kill_process(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _start_dask_worker(place: Place, address: str, security: Security) -> None:
    """Run a Dask worker beside the engine, in a thread with an event loop of its own."""
    import asyncio

    from distributed import Worker

    async def serve() -> None:
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        async with Worker(address, nthreads=1, security=security, dashboard=False) as worker:
            worker.http_server.stop()
            await worker.finished()

    threading.Thread(target=lambda: asyncio.run(serve()), name="paibook-dask-worker", daemon=True).start()
