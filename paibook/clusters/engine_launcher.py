"""Ranks on Dask workers: ipyparallel engines that the workers start as child processes.

Each engine lives in a session of its own and reports to a controller beside the notebook. Which worker takes which rank
is decided from what every worker holds already, ranks of other notebooks included.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from distributed import Client

from paibook.clusters import engine_host
from paibook.clusters.cards import CardSurvey, NewRank, deal_cards, ranks_that_fit
from paibook.clusters.contract import Ranks, RankStatus
from paibook.clusters.controller import Controller
from paibook.clusters.dask_calls import ANSWER_SECONDS, ask
from paibook.clusters.engine_ranks import Engine, EngineCaller, EngineRanks, connect_client, drop_lost, engine_status
from paibook.clusters.placement import place, within_cards
from paibook.errors import ClusterError, RankLost
from paibook.gpus import environment_of
from paibook.gpus.leases import KERNEL_LEASE
from paibook.resources import CardChoice, Placement
from paibook.settings import settings

logger = logging.getLogger(__name__)
STOP_SECONDS = 3.0


class EngineLauncher:
    """The ranks of one session on one Dask cluster.

    Args:
        where: The cluster's name for messages.
        client: Connected; stays its owner's.
        capacity: Slots for ranks by worker address.
        controller: Gives the started controller.
        losses: What was lost before, by role: added to, and taken from by whoever tells the user.
    """

    def __init__(
        self,
        where: str,
        client: Client,
        capacity: Callable[[], dict[str, int]],
        controller: Callable[[], Controller],
        losses: dict[str, list[RankLost]],
    ) -> None:
        self._where = where
        self._client = client
        self._capacity = capacity
        self._session = uuid.uuid4().hex
        self._topic = f"paibook-ranks-{self._session}"
        self._engines: dict[str, list[Engine]] = {}
        self._next_id = 0
        self._losses = losses
        self._controller = controller()
        client.subscribe_topic(self._topic, self._on_engine_end)
        client.subscribe_topic("all", self._on_cluster_event)
        self._caller = EngineCaller(connect_client(connection_info=self._controller.client_info))
        self._lock = threading.RLock()

    def ranks(
        self,
        size: int,
        role: str,
        gpus: int,
        placement: Placement = "spread",
        cards: CardChoice = CardChoice(),
    ) -> Ranks:
        """See ``Cluster.ranks``. Ranks with fewer cards than asked for are replaced by ones that have them."""
        with self._lock:
            engines = self._engines.setdefault(role, [])
            self._drop_cardless(engines[:size], gpus, cards)
            missing = [rank for rank in range(size) if rank >= len(engines) or engines[rank].lost is not None]
            if missing:
                self._launch(role, engines, missing, size, gpus, placement, cards)
            return _LauncherRanks(role, self._caller, engines[:size], self._kill, self._losses.setdefault(role, []))

    def without_lost(self, most: int, role: str) -> Ranks:
        """See ``Cluster.without_lost``."""
        with self._lock:
            engines = self._engines.setdefault(role, [])
            drop_lost(engines, self._where)
            losses = self._losses.setdefault(role, [])
            return _LauncherRanks(role, self._caller, engines[:most], self._kill, losses)

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
        try:
            ask(self._client, engine_host.kill_session, self._session, on_error="ignore", timeout=STOP_SECONDS)
            self._client.unsubscribe_topic(self._topic)
            self._client.unsubscribe_topic("all")
        finally:
            self._caller.close()

    def forsake(self, cause: str) -> None:
        """Give up every rank where the cluster can no longer be asked; they end with their controller or worker."""
        for engine in self._all():
            self._caller.lose(engine, cause)
        self._note_losses(self._all())
        self._caller.close()

    def retire(self, workers: Collection[str]) -> None:
        """End the ranks on Dask workers that are about to go."""
        engines = [engine for engine in self._all() if engine.lost is None and engine.worker in workers]
        for engine in engines:
            self._caller.lose(engine, f"its Dask worker {engine.worker} was retired by scaling down")
        self._kill(engines)

    def _launch(
        self,
        role: str,
        engines: list[Engine],
        missing: Sequence[int],
        size: int,
        gpus: int,
        placement: Placement,
        choice: CardChoice,
    ) -> None:
        held = sum(engine.lost is None for engine in self._all())
        free = free_slots(self._client, self._capacity(), settings().start_timeout)
        surveys = self._survey() if gpus else {}
        if gpus:
            free = _with_cards(free, surveys, len(missing), gpus, choice)
        near = [engine.worker for engine in engines if engine.lost is None]
        addresses = place(free, len(missing), self._where, size, held, placement, near)
        fresh = []
        for rank, address in zip(missing, addresses, strict=True):
            engine = Engine(self._next_id, role, rank, worker=address, share=choice.share)
            self._next_id += 1
            self._note_losses(engines[rank : rank + 1])
            engines[rank : rank + 1] = [engine]
            fresh.append(engine)
        try:
            if gpus:
                cards = deal_cards(surveys, _new(fresh), gpus, (), choice, placement, _kernel_lease())
                for engine in fresh:
                    engine.cards = tuple(cards[engine.id])
            for engine in fresh:
                engine.pid = self._start(engine)
            self._caller.wait_ready(fresh, settings().start_timeout)
        except BaseException:
            self._kill(fresh)
            for engine in fresh:
                self._caller.lose(engine, "it did not start")
            raise

    def _note_losses(self, engines: Sequence[Engine]) -> None:
        for engine in engines:
            if engine.lost is not None and engine.host:  # one that was never ready had no variables
                losses = self._losses.setdefault(engine.role, [])
                losses[:] = [loss for loss in losses if loss.rank != engine.rank]
                losses.append(RankLost(engine.role, engine.rank, engine.lost))

    def _start(self, engine: Engine) -> int:
        environment = {name: os.environ[name] for name in engine_host.THREAD_SETTINGS if name in os.environ}
        environment["PAIBOOK_ROLE"] = engine.role
        order = None
        if engine.cards:
            environment |= environment_of(engine.cards)
            name = f"{engine.role} {engine.rank} of process {os.getpid()} on {socket.gethostname()}"
            order = engine_host.CardOrder(engine.cards, engine.share, _kernel_lease(), name)
        message = {
            "id": engine.id,
            "connection": self._controller.engine_info,
            "directory": os.getcwd(),
            "environment": environment,
        }
        started = ask(
            self._client,
            engine_host.start,
            self._session,
            self._topic,
            message,
            order,
            workers=[engine.worker],
            on_error="return",
            timeout=settings().start_timeout,
        )[engine.worker]
        if isinstance(started, BaseException):
            raise ClusterError(f"worker {engine.worker} could not start a rank: {started}") from started
        return int(started)

    def _drop_cardless(self, engines: Sequence[Engine], gpus: int, choice: CardChoice) -> None:
        if not gpus:
            return
        cardless = [engine for engine in engines if engine.lost is None and not _has_cards(engine, gpus, choice)]
        if cardless:
            # Raises, before anything is lost, where there are too few.
            returned = {engine.pid for engine in cardless}
            deal_cards(self._survey(), _new(cardless), gpus, returned, choice, within=_kernel_lease())
            self._kill(cardless)
            for engine in cardless:
                self._caller.lose(engine, "it was replaced by one with GPUs")

    def _survey(self) -> dict[str, CardSurvey]:
        return ask(self._client, engine_host.survey_cards, timeout=settings().start_timeout)

    def _kill(self, engines: Sequence[Engine]) -> None:
        for worker in {engine.worker for engine in engines}:
            pids = [engine.pid for engine in engines if engine.worker == worker and engine.pid]
            self._kill_on(worker, pids)

    def _kill_on(self, worker: str, pids: Sequence[int]) -> None:
        try:
            if worker in self._client.nthreads():
                ask(self._client, engine_host.kill, pids, workers=[worker], on_error="ignore", timeout=STOP_SECONDS)
        except ClusterError:
            # The ranks count as lost all the same; whoever asks for new ones is told of the worker.
            logger.warning("worker %s did not end its ranks", worker, exc_info=True)

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


class _LauncherRanks(EngineRanks):
    def __init__(
        self,
        role: str,
        caller: EngineCaller,
        engines: Sequence[Engine],
        kill: Callable[[Sequence[Engine]], None],
        losses: list[RankLost],
    ) -> None:
        super().__init__(role, caller, engines, kill)
        self._losses = losses

    def take_losses(self) -> list[RankLost]:
        taken = [loss for loss in self._losses if loss.rank < self.size]
        self._losses[:] = [loss for loss in self._losses if loss.rank >= self.size]
        return taken


def _new(engines: Sequence[Engine]) -> list[NewRank]:
    return [NewRank(engine.id, engine.worker, engine.rank) for engine in engines]


def _has_cards(engine: Engine, gpus: int, choice: CardChoice) -> bool:
    if len(engine.cards) < gpus or engine.share != choice.share:
        return False
    wanted = choice.of_rank(engine.rank, gpus)
    return not wanted or tuple(card.label for card in engine.cards) == wanted


def _with_cards(
    free: dict[str, int], surveys: Mapping[str, CardSurvey], count: int, gpus: int, choice: CardChoice
) -> dict[str, int]:
    """Free slots where there are cards for them; as they are where those are too few, which dealing them says."""
    within = _kernel_lease()
    fits = {worker: ranks_that_fit(surveys, worker, gpus, choice.share, within) for worker in surveys}
    left = within_cards(free, fits)
    return left if sum(left.values()) >= count else free


def _kernel_lease() -> str:
    """The lease under which this notebook's kernel was started, if it was."""
    return os.environ.get(KERNEL_LEASE, "")


def free_slots(client: Client, capacity: dict[str, int], timeout: float = ANSWER_SECONDS) -> dict[str, int]:
    """Places left for ranks by worker address, after those that ranks of any session hold."""
    used = ranks_held(client, timeout)
    return {address: max(0, slots - used[address]) for address, slots in capacity.items() if address in used}


def ranks_held(client: Client, timeout: float = ANSWER_SECONDS) -> dict[str, int]:
    """Live ranks of any session by worker address."""
    return ask(client, engine_host.count, on_error="ignore", timeout=timeout)
