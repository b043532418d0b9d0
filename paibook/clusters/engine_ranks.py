"""Ranks that are ipyparallel engines, called through one ipyparallel client."""

from __future__ import annotations

import logging
import pickle
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeVar

import ipyparallel
import ipyparallel.error
from traitlets.log import get_logger

from paibook.clusters.contract import Event, EventKind, OnBegun, OnEvent, Pending, Ranks, RankStatus
from paibook.clusters.engine_interrupt import CALL
from paibook.clusters.engine_notices import REQUEST, WORD
from paibook.clusters.engine_place import EVENT_MIME, Packed, decode_event, invoke
from paibook.errors import ClusterError, RankLost
from paibook.gpus import Device
from paibook.resources import WHOLE

T = TypeVar("T")
logger = logging.getLogger(__name__)
POLL_SECONDS = 0.005

Requests = tuple[tuple[str, dict[str, Any]], ...]  # control messages: type and content


@dataclass
class Call:
    """A call that an engine has not answered yet; ``id`` is its message's, once it has been sent."""

    future: Future[Any]
    id: str = ""


@dataclass
class Engine:
    """One engine as its session knows it.

    Attributes:
        id: ipyparallel's engine id.
        role, rank: What the engine is to the session.
        host, pid: Where it lives.
        worker: Address of the Dask worker that started it, or empty.
        cards, share: GPUs it was given, and how many percent of each.
        lost: Why it ended, or None while it lives.
        ended: The message of the last call that has ended.
    """

    id: int
    role: str
    rank: int
    host: str = ""
    pid: int = 0
    worker: str = ""
    cards: tuple[Device, ...] = ()
    share: int = WHOLE
    lost: str | None = None
    ended: str = ""
    calls: list[Call] = field(default_factory=list)


def connect_client(**where: Any) -> ipyparallel.Client:
    """Connect an ipyparallel client, without the warning that messages are not signed: CurveZMQ authenticates them."""
    logger: Any = get_logger()
    unsigned = _Unsigned()
    logger.addFilter(unsigned)
    try:
        return ipyparallel.Client(**where)
    finally:
        logger.removeFilter(unsigned)


class _Unsigned(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return "signing is disabled" not in record.getMessage()


class EngineCaller:
    """Calls functions on engines and turns what they publish into events.

    Args:
        client: Connected; this object owns it.
    """

    def __init__(self, client: ipyparallel.Client) -> None:
        self.client = client
        self._lock = threading.Lock()
        self._outbox: list[Callable[[], None]] = []
        self._closed = False

    def call(
        self,
        engines: Sequence[Engine],
        packed: Packed,
        each: Callable[[int], tuple[Any, ...]] | None = None,
        on_event: OnEvent | None = None,
        on_begun: OnBegun | None = None,
    ) -> list[Future[Any]]:
        """Run a function on engines; each future holds the function's own result or exception.

        Args:
            packed: The function and its arguments.
            each: Gives the arguments that follow, by rank.
            on_event, on_begun: See ``Ranks.apply``.
        """
        futures: list[Future[Any]] = []
        sends: list[Callable[[], None]] = []
        for engine in engines:
            future: Future[Any] = Future()
            futures.append(future)
            arguments = packed.message(engine.role, engine.rank, each(engine.rank) if each else ())
            with self._lock:
                if engine.lost is not None or engine.id not in self.client.ids:
                    cause = engine.lost or "its engine left the cluster"
                    future.set_exception(RankLost(engine.role, engine.rank, cause))
                    continue
                engine.calls.append(call := Call(future))
            sends.append(partial(self._send, engine, call, arguments, on_event, on_begun))
        self._in_loop(*sends)
        return futures

    def _in_loop(self, *sends: Callable[[], None]) -> None:
        """Have the client's own thread send: it is woken once, however many engines are called."""
        with self._lock:
            first = not self._outbox and bool(sends)
            self._outbox += sends
        if self._closed:  # nobody is left to send, and each call is to say so
            self._send_all()
        elif first:
            try:
                self.client._io_loop.add_callback(self._send_all)
            except RuntimeError:  # closed at this moment
                self._send_all()

    def _send_all(self) -> None:
        with self._lock:
            outbox, self._outbox = self._outbox, []
        for send in outbox:
            try:
                send()
            except Exception:  # of one engine, which may just have left; the others are to hear
                logger.debug("a message to a rank was not sent", exc_info=True)

    def _send(
        self,
        engine: Engine,
        call: Call,
        arguments: tuple[Any, ...],
        on_event: OnEvent | None,
        on_begun: OnBegun | None,
    ) -> None:
        def hook(message: Any) -> None:
            call.id = message.msg_id
            if on_begun is not None:
                message.iopub_callbacks.append(partial(_tell_begun, on_begun, engine.rank))
            message.iopub_callbacks.append(lambda msg: self._on_message(engine, on_event, msg))
            waiting = [message, message.output]

            def one_done(done: Any) -> None:
                waiting.remove(done)
                if not waiting or done.exception() is not None:
                    self._finish(engine, call.future, message)
                    self._listen_on(engine, on_event, message.msg_id)

            for part in tuple(waiting):
                part.add_done_callback(one_done)

        try:
            ident = self.client._engines[engine.id].encode()
            # By the stream, not the bare socket as ipyparallel's own views do: sending on the socket swallows the edge
            # that announces a reply which came meanwhile, and under load replies then lie unread.
            self.client.send_apply_request(
                self.client._mux_stream, invoke, arguments, ident=ident, message_future_hook=hook
            )
        except Exception as error:  # the client was closed, or the engine has just left
            self._forget(engine, call.future)
            cause = engine.lost or f"its cluster cannot be reached: {type(error).__name__}: {error}"
            _fail(call.future, RankLost(engine.role, engine.rank, cause))

    def lose(self, engine: Engine, cause: str) -> None:
        """Mark an engine as gone and fail what it was running."""
        with self._lock:
            if engine.lost is None:
                engine.lost = cause
            calls, engine.calls = engine.calls, []
        for call in calls:
            _fail(call.future, RankLost(engine.role, engine.rank, engine.lost))

    def interrupt(self, engines: Sequence[Engine]) -> None:
        """Interrupt what each engine runs now; a call that is still on its way there is withdrawn instead."""

        # The first says nothing to an engine that has begun the call, the second to one that has ended it.
        def requests(call: str) -> Requests:
            return ("abort_request", {"msg_ids": [call]}), ("interrupt_request", {CALL: call})

        self._tell(engines, requests)

    def notify(self, engines: Sequence[Engine], word: str) -> None:
        """Leave a word for what each engine runs now."""
        self._tell(engines, lambda call: ((REQUEST, {CALL: call, WORD: word}),))

    def _tell(self, engines: Sequence[Engine], requests: Callable[[str], Requests]) -> None:
        """Send control messages about the call that each engine runs now."""
        with self._lock:
            running = [(engine, engine.calls[0]) for engine in engines if engine.calls]
        self._in_loop(*[partial(self._send_control, engine, call, requests) for engine, call in running])

    def _send_control(self, engine: Engine, call: Call, requests: Callable[[str], Requests]) -> None:
        if engine.lost is None and engine.id in self.client.ids and call.id:
            ident = self.client._engines[engine.id].encode()
            for kind, content in requests(call.id):
                self.client._send(self.client._control_stream, kind, content=content, ident=ident)

    def wait_ready(self, engines: Sequence[Engine], timeout: float) -> None:
        """Wait until every engine has registered and its output reaches this client.

        Raises:
            ClusterError: One ended, or the time ran out.
        """
        deadline = time.monotonic() + timeout
        waiting = list(engines)
        while waiting:
            for engine in waiting:
                if engine.lost is not None:
                    raise ClusterError(f"{engine.role} rank {engine.rank} did not start: {engine.lost}")
            waiting = [engine for engine in waiting if engine.id not in self.client.ids]
            if time.monotonic() > deadline:
                ranks = ", ".join(f"{engine.role} {engine.rank}" for engine in waiting)
                raise ClusterError(f"these ranks were not ready after {timeout:.0f} s: {ranks}")
            time.sleep(POLL_SECONDS if waiting else 0)
        self._shake_hands(engines, deadline)

    def _shake_hands(self, engines: Sequence[Engine], deadline: float) -> None:
        # An engine's publish socket may drop what it says before its subscription has travelled, so ask until heard.
        silent = list(engines)
        while silent:
            heard: set[int] = set()
            futures = self.call(silent, Packed.of(_introduce, ()), on_begun=heard.add)
            for engine, future in zip(silent, futures, strict=True):
                try:
                    engine.host, engine.pid = future.result(max(0.0, deadline - time.monotonic()))
                except TimeoutError as error:
                    raise ClusterError(f"{engine.role} rank {engine.rank} started but does not answer") from error
                except RankLost as error:
                    raise ClusterError(str(error)) from error
            silent = [engine for engine in silent if engine.rank not in heard]

    def close(self) -> None:
        """Close the client's sockets; what was not sent yet fails."""
        self.client.close()
        self._closed = True
        self._send_all()

    def _on_message(self, engine: Engine, on_event: OnEvent | None, message: dict[str, Any]) -> None:
        self.client.metadata[message["parent_header"]["msg_id"]].update(stdout="", stderr="", outputs=[])
        if on_event is None:
            return
        content = message["content"]
        match message["header"]["msg_type"]:
            case "stream":
                on_event(Event(content["name"], engine.role, engine.rank, content["text"]))
            case "display_data" if EVENT_MIME in content["data"]:
                event = content["data"][EVENT_MIME]
                on_event(Event(event["kind"], engine.role, engine.rank, decode_event(event["kind"], event["data"])))
            case "display_data":
                on_event(_shown("display", engine, content))
            case "update_display_data":
                on_event(_shown("update", engine, content))
            case "clear_output":
                on_event(Event("clear", engine.role, engine.rank, "", {"wait": content["wait"]}))

    def _listen_on(self, engine: Engine, on_event: OnEvent | None, call: str) -> None:
        """Pass on what an engine's background threads print after a call, until its next call has ended."""
        if on_event is None:
            return

        def late(message: dict[str, Any]) -> None:
            if message["header"]["msg_type"] == "stream":
                self._on_message(engine, on_event, message)
            self.client.metadata.pop(call, None)

        def listen() -> None:
            self.client._futures.pop(engine.ended, None)
            self.client._futures[call] = SimpleNamespace(iopub_callbacks=[late])
            engine.ended = call

        # ipyparallel forgets the call in the loop's next turn; in the one after that it is listened for again.
        loop = self.client._io_loop
        loop.add_callback(loop.add_callback, listen)

    def _forget(self, engine: Engine, future: Future[Any]) -> None:
        with self._lock:
            engine.calls = [call for call in engine.calls if call.future is not future]

    def _finish(self, engine: Engine, future: Future[Any], message: Any) -> None:
        self._forget(engine, future)
        error = message.exception() if message.done() else None
        if error is not None:
            self.lose(engine, "its engine stopped answering")
            _fail(future, RankLost(engine.role, engine.rank, engine.lost or ""))
            return
        outcome = message.result()
        if isinstance(outcome, BaseException):  # ipyparallel hands errors back as results
            lost = getattr(outcome, "ename", "") == "EngineError"
            if lost:
                self.lose(engine, "its engine stopped answering")
            error = KeyboardInterrupt() if isinstance(outcome, ipyparallel.error.TaskAborted) else outcome
            _fail(future, RankLost(engine.role, engine.rank, engine.lost or "") if lost else error)
            return
        # The payload comes from an engine of our own, over an authenticated channel.
        ok, value = pickle.loads(outcome)
        if ok:
            _succeed(future, value)
        else:
            _fail(future, value)


class EngineRanks(Ranks):
    """A group of engines, numbered from 0.

    Args:
        caller: Shared by the groups of a session.
        engines: In order of rank.
        kill: How the cluster ends engines.
    """

    def __init__(
        self, role: str, caller: EngineCaller, engines: Sequence[Engine], kill: Callable[[Sequence[Engine]], None]
    ) -> None:
        self.role = role
        self.size = len(engines)
        self._caller = caller
        self._engines = list(engines)
        self._kill = kill

    def apply(
        self,
        function: Callable[..., T],
        *args: Any,
        ranks: Sequence[int] | None = None,
        each: Callable[[int], tuple[Any, ...]] | None = None,
        on_event: OnEvent | None = None,
        on_begun: OnBegun | None = None,
    ) -> list[Pending[T]]:
        packed = Packed.of(function, args)
        return self._caller.call(self._chosen(ranks), packed, each, on_event, on_begun)  # type: ignore[return-value]

    def interrupt(self, ranks: Sequence[int] | None = None) -> None:
        self._caller.interrupt(self._chosen(ranks))

    def notify(self, word: str, ranks: Sequence[int] | None = None) -> None:
        self._caller.notify(self._chosen(ranks), word)

    def kill(self, ranks: Sequence[int] | None = None) -> None:
        chosen = self._chosen(ranks)
        self._kill(chosen)
        for engine in chosen:
            self._caller.lose(engine, "it was killed by the session")

    def status(self) -> list[RankStatus]:
        return [engine_status(engine) for engine in self._engines]

    def _chosen(self, ranks: Sequence[int] | None) -> list[Engine]:
        return self._engines if ranks is None else [self._engines[rank] for rank in ranks]


def drop_lost(engines: list[Engine], where: str) -> None:
    """Leave lost engines out of a group, and number the others anew.

    Raises:
        ClusterError: None is left.
    """
    left = [engine for engine in engines if engine.lost is None]
    if not left:
        raise ClusterError(f"no rank is left on {where}")
    for rank, engine in enumerate(left):
        engine.rank = rank
    engines[:] = left


def engine_status(engine: Engine) -> RankStatus:
    """An engine's state as the contract names it."""
    state = "lost" if engine.lost is not None else "busy" if engine.calls else "idle"
    return RankStatus(
        engine.role, engine.rank, engine.host, engine.pid, state, tuple(card.label for card in engine.cards)
    )


def _shown(kind: EventKind, engine: Engine, content: dict[str, Any]) -> Event:
    display_id = content.get("transient", {}).get("display_id", "")
    return Event(kind, engine.role, engine.rank, content["data"], content.get("metadata", {}), display_id)


def _tell_begun(on_begun: OnBegun, rank: int, message: dict[str, Any]) -> None:
    # An engine says so of itself when it has read a call, before it runs it.
    if message["header"]["msg_type"] == "status" and message["content"]["execution_state"] == "busy":
        on_begun(rank)


def _introduce(place: Any) -> tuple[str, int]:
    import os
    import socket

    place.namespace.setdefault("__name__", "__main__")
    return socket.gethostname(), os.getpid()


def _fail(future: Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _succeed(future: Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)
