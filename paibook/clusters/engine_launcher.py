"""Ranks on Dask workers: ipyparallel engines that the workers start as child processes.

Each engine lives in a session of its own and reports to a controller beside the notebook. Which worker takes which rank
is decided from what every worker holds already, ranks of other notebooks included.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from distributed import Client

from paibook.clusters import engine_host
from paibook.clusters.contract import Ranks, RankStatus
from paibook.clusters.controller import Controller
from paibook.clusters.engine_ranks import Engine, EngineCaller, EngineRanks, connect_client, engine_status
from paibook.clusters.placement import place
from paibook.errors import ClusterError
from paibook.gpus import Device, assign, discover
from paibook.settings import settings


class EngineLauncher:
    """The ranks of one session on one Dask cluster.

    Args:
        where: The cluster's name for messages.
        client: Connected; stays its owner's.
        capacity: Slots for ranks by worker address.
        controller: Gives the started controller.
    """

    def __init__(
        self,
        where: str,
        client: Client,
        capacity: Callable[[], dict[str, int]],
        controller: Callable[[], Controller],
    ) -> None:
        self._where = where
        self._client = client
        self._capacity = capacity
        self._session = uuid.uuid4().hex
        self._topic = f"paibook-ranks-{self._session}"
        self._engines: dict[str, list[Engine]] = {}
        self._next_id = 0
        self._controller = controller()
        client.subscribe_topic(self._topic, self._on_engine_end)
        client.subscribe_topic("all", self._on_cluster_event)
        self._caller = EngineCaller(connect_client(connection_info=self._controller.client_info))
        self._lock = threading.RLock()

    def ranks(self, size: int, role: str, gpus: int) -> Ranks:
        """See ``Cluster.ranks``. Ranks with fewer cards than asked for are replaced by ones that have them."""
        with self._lock:
            engines = self._engines.setdefault(role, [])
            self._drop_cardless(engines[:size], gpus)
            missing = [rank for rank in range(size) if rank >= len(engines) or engines[rank].lost is not None]
            if missing:
                self._launch(role, engines, missing, size, gpus)
            return EngineRanks(role, self._caller, engines[:size], self._kill)

    def missing(self, size: int, role: str) -> int:
        """How many ranks would have to be started for a group of ``size``."""
        return size - sum(engine.lost is None for engine in self._engines.get(role, [])[:size])

    def status(self) -> list[RankStatus]:
        """Every rank of this session."""
        return [engine_status(engine) for engine in self._all()]

    def stop(self) -> None:
        """End every rank of this session, and wait until their places are free."""
        for engine in self._all():
            self._caller.lose(engine, "the cluster was closed")
        self._client.run(_kill_session, self._session, on_error="ignore")
        self._client.unsubscribe_topic(self._topic)
        self._client.unsubscribe_topic("all")
        self._caller.close()

    def _launch(self, role: str, engines: list[Engine], missing: Sequence[int], size: int, gpus: int) -> None:
        held = sum(engine.lost is None for engine in self._all())
        free = free_slots(self._client, self._capacity())
        addresses = place(free, len(missing), self._where, size, held)
        fresh = []
        for rank, address in zip(missing, addresses, strict=True):
            engine = Engine(self._next_id, role, rank, worker=address)
            self._next_id += 1
            engines[rank : rank + 1] = [engine]
            fresh.append(engine)
        try:
            cards = self._assign_cards(fresh, gpus)
            for engine in fresh:
                mine = cards.get(engine.id, [])
                engine.pid, engine.cards = self._start(engine, mine), len(mine)
            self._caller.wait_ready(fresh, settings().start_timeout)
        except BaseException:
            self._kill(fresh)
            for engine in fresh:
                self._caller.lose(engine, "it did not start")
            raise

    def _start(self, engine: Engine, cards: Sequence[Device]) -> int:
        environment = {name: os.environ[name] for name in engine_host.THREAD_SETTINGS if name in os.environ}
        environment["PAIBOOK_ROLE"] = engine.role
        if cards:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(card.uuid for card in cards)
        message = {
            "id": engine.id,
            "connection": self._controller.engine_info,
            "directory": os.getcwd(),
            "environment": environment,
        }
        started = self._client.run(
            _start_engine, self._session, self._topic, message, workers=[engine.worker], on_error="return"
        )[engine.worker]
        if isinstance(started, BaseException):
            raise ClusterError(f"worker {engine.worker} could not start a rank: {started}") from started
        return int(started)

    def _drop_cardless(self, engines: Sequence[Engine], gpus: int) -> None:
        cardless = [engine for engine in engines if engine.lost is None and engine.cards < gpus]
        if cardless:
            self._assign_cards(cardless, gpus)  # raises, before anything is lost, where there are too few
            self._kill(cardless)
            for engine in cardless:
                self._caller.lose(engine, "it was replaced by one with GPUs")

    def _assign_cards(self, engines: Sequence[Engine], gpus: int) -> dict[int, list[Device]]:
        """Cards for each engine id, by host; workers of one host see the same cards."""
        if not gpus:
            return {}
        found = self._client.run(_discover_cards, workers=list({engine.worker for engine in engines}))
        cards: dict[int, list[Device]] = {}
        for host in {host for host, _devices in found.values()}:
            here = [engine for engine in engines if found[engine.worker][0] == host]
            devices = next(devices for name, devices in found.values() if name == host)
            for index, mine in assign(devices, len(here), gpus).items():
                cards[here[index].id] = mine
        return cards

    def _kill(self, engines: Sequence[Engine]) -> None:
        for worker in {engine.worker for engine in engines}:
            pids = [engine.pid for engine in engines if engine.worker == worker and engine.pid]
            if worker in self._client.nthreads():
                self._client.run(_kill_engines, pids, workers=[worker], on_error="ignore")

    def _on_engine_end(self, event: tuple[Any, Any]) -> None:
        _time, message = event
        for engine in self._all():
            if engine.id == message["id"]:
                self._caller.lose(engine, message["cause"])

    def _on_cluster_event(self, event: tuple[Any, Any]) -> None:
        _time, message = event
        if isinstance(message, dict) and message.get("action") == "remove-worker":
            for engine in self._all():
                if engine.worker == message.get("worker"):
                    self._caller.lose(engine, f"its Dask worker {engine.worker} was lost")

    def _all(self) -> list[Engine]:
        return [engine for group in tuple(self._engines.values()) for engine in tuple(group)]


def free_slots(client: Client, capacity: dict[str, int]) -> dict[str, int]:
    """Places left for ranks by worker address, after those that ranks of any session hold."""
    used = client.run(_count_engines, on_error="ignore")
    return {address: max(0, slots - used[address]) for address, slots in capacity.items() if address in used}


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
