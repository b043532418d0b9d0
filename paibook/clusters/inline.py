"""The inline cluster: tasks one after another in a thread, ranks as threads, all in this process.

The debugger and the oracle of the test-suite, and a full peer of the others: breakpoints work, and exceptions are the
user's own objects.
"""

from __future__ import annotations

import ctypes
import os
import queue
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, TypeVar

from paibook.clusters.capture import captured
from paibook.clusters.cards import CardSurvey, NewRank, deal_cards
from paibook.clusters.contract import (
    Cluster,
    ClusterStatus,
    Event,
    EventKind,
    OnBegun,
    OnEvent,
    Pending,
    Place,
    Ranks,
    RankStatus,
    Tasks,
)
from paibook.clusters.delayed import delayed_values
from paibook.clusters.display import mime_bundle
from paibook.clusters.task_events import speaking
from paibook.errors import ClusterError, RankLost, RunCancelled
from paibook.gpus import Holder, Lease, LeaseBook, discover
from paibook.gpus.leases import KERNEL_LEASE
from paibook.metrics import Recorder, recording
from paibook.resources import CardChoice, Placement

T = TypeVar("T")
MAX_RANKS = 64


class InlineCluster(Cluster):
    """Everything in this process.

    Args:
        slots: Tasks the runtimes plan for; they run one after another all the same.
    """

    portable = False

    def __init__(self, slots: int = 2) -> None:
        self.reference = "inline"
        self._slots = slots
        self._threads: dict[str, list[_RankThread]] = {}
        self._cards: list[Lease] = []
        self._tasks: InlineTasks | None = None

    def start(self) -> None:
        pass

    def tasks(self) -> Tasks:
        if self._tasks is None:
            self._tasks = InlineTasks(self._slots)
        return self._tasks

    def ranks(
        self,
        size: int,
        role: str = "worker",
        gpus: int = 0,
        placement: Placement = "spread",
        cards: CardChoice = CardChoice(),
    ) -> Ranks:
        size = size or len(self._threads.get(role, ())) or self._slots
        if size > MAX_RANKS:
            raise ClusterError(f"the inline cluster holds {MAX_RANKS} ranks, {MAX_RANKS} free; asked for {size}")
        if gpus:
            self._take_cards(size, gpus, cards)
        threads = self._threads.setdefault(role, [])
        for rank in range(size):
            if rank == len(threads):
                threads.append(_RankThread(role, rank))
            elif not threads[rank].alive:
                threads[rank] = _RankThread(role, rank)
        return InlineRanks(role, threads[:size])

    def sibling(self) -> InlineCluster:
        return InlineCluster(self._slots)

    def _take_cards(self, size: int, gpus: int, cards: CardChoice) -> None:
        """Take them for this process, whose threads all see all its cards; earlier cells' come back first."""
        devices, book = discover(), LeaseBook()
        ranks = [NewRank(rank, "", rank) for rank in range(size)]
        held = book.held() if devices else []
        mine = {lease.id for lease in self._cards}
        within = os.environ.get(KERNEL_LEASE, "")
        survey = CardSurvey("this machine", devices, [lease for lease in held if lease.id not in mine])
        dealt = deal_cards({"": survey}, ranks, gpus, choice=cards, within=within)
        self._give_cards_back()
        for rank in ranks:
            holder = Holder.of("rank", f"{rank.rank} of the inline cluster")
            self._cards += book.take(dealt[rank.id], holder, share=cards.share, within=within)

    def _give_cards_back(self) -> None:
        for id in {lease.id for lease in self._cards}:
            LeaseBook().give_back(id)
        self._cards.clear()

    def scale(self, workers: int) -> None:
        self._slots = max(1, workers)
        if self._tasks is not None:
            self._tasks.slots = self._slots

    def status(self) -> ClusterStatus:
        threads = [thread for group in self._threads.values() for thread in group]
        ranks = [thread.status() for thread in threads]
        return ClusterStatus("inline", "this process", 1, MAX_RANKS, MAX_RANKS - len(ranks), ranks)

    def restart(self) -> None:
        self.close()

    def close(self) -> None:
        for thread in [thread for group in self._threads.values() for thread in group]:
            thread.stop()
        self._threads.clear()
        self._give_cards_back()
        if self._tasks is not None:
            self._tasks.close()
        self._tasks = None


class InlineTasks(Tasks):
    """Each task in its turn, in one thread; ``release`` ends the one that runs."""

    slots: int = 1

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._lock = threading.Lock()
        self._thread: _TaskThread | None = None

    def submit(
        self,
        function: Callable[..., T],
        *args: Any,
        label: str = "task",
        number: int = 0,
        on_event: OnEvent | None = None,
    ) -> Pending[T]:
        future: Future[T] = Future()

        def say(kind: EventKind, data: Any) -> None:
            if on_event is not None:
                on_event(Event(kind, label, number, data))

        def run() -> T:
            recorder = Recorder(lambda batch: say("metric", batch), number)
            with captured(lambda t: say("stdout", t), lambda t: say("stderr", t)), recording(recorder), speaking(say):
                return function(*(_value(argument) for argument in args))

        with self._lock:
            if self._thread is None:
                self._thread = _TaskThread()
            self._thread.calls.put((future, run))
        return future  # type: ignore[return-value]

    def release(self, pending: Sequence[Pending[Any]]) -> None:
        for future in pending:
            if not future.done():
                _settle(future, None, RunCancelled("the run was stopped"))  # type: ignore[arg-type]
        with self._lock:
            if self._thread is not None and self._thread.stop_if(pending):
                # What is blocked in C does not end at once; the next tasks do not wait for it.
                self._thread = self._thread.successor()

    def shares(self, path: str) -> bool:
        return True

    def partitions(self, collection: Any) -> list[Pending[Any]]:
        return [self.submit(value.compute) for value in delayed_values(collection)]

    def close(self) -> None:
        """End the thread when its tasks are done."""
        with self._lock:
            if self._thread is not None:
                self._thread.calls.put(None)
            self._thread = None


class _Stop(BaseException):
    """Raised inside a released task to end it; outside ``Exception``, so that user code does not swallow it."""


class _TaskThread:
    """A daemon thread that runs tasks from a queue, until it is told to stop the one it is at."""

    def __init__(self, calls: queue.SimpleQueue[_TaskCall | None] | None = None) -> None:
        self.calls: queue.SimpleQueue[_TaskCall | None] = calls or queue.SimpleQueue()
        self._running: Future[Any] | None = None
        self._stopped = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._loop, name="paibook-tasks", daemon=True)
        self._thread.start()

    def stop_if(self, pending: Sequence[Pending[Any]]) -> bool:
        """End the running task where it is one of these, and this thread with it; says whether it was."""
        with self._lock:
            running: Any = self._running
            self._stopped = running in pending
            if self._stopped:
                _raise_in(self._thread, _Stop)
            return self._stopped

    def successor(self) -> _TaskThread:
        """A thread that goes on with the queue of this one, which is stopped."""
        return _TaskThread(self.calls)

    def _loop(self) -> None:
        try:
            while not self._stopped and (call := self.calls.get()) is not None:
                self._run(*call)
        except _Stop:
            return  # it came just after the task it was meant for

    def _run(self, future: Future[Any], run: Callable[[], Any]) -> None:
        with self._lock:
            if future.done():
                return
            self._running = future
        outcome: Any = None
        error: BaseException | None = None
        try:
            outcome = run()
        except BaseException as raised:
            error = raised
        finally:
            with self._lock:
                self._running = None
        _settle(future, outcome, error)


_TaskCall = tuple[Future[Any], Callable[[], Any]]


class InlineRanks(Ranks):
    """A group of rank threads."""

    def __init__(self, role: str, threads: list[_RankThread]) -> None:
        self.role = role
        self.size = len(threads)
        self._threads = threads

    def apply(
        self,
        function: Callable[..., T],
        *args: Any,
        ranks: Sequence[int] | None = None,
        each: Callable[[int], tuple[Any, ...]] | None = None,
        on_event: OnEvent | None = None,
        on_begun: OnBegun | None = None,
    ) -> list[Pending[T]]:
        return [
            thread.submit(function, (*args, *(each(thread.rank) if each else ())), on_event, on_begun)
            for thread in self._chosen(ranks)
        ]

    def interrupt(self, ranks: Sequence[int] | None = None) -> None:
        for thread in self._chosen(ranks):
            thread.interrupt()

    def notify(self, word: str, ranks: Sequence[int] | None = None) -> None:
        for thread in self._chosen(ranks):
            thread.notices.add(word)

    def kill(self, ranks: Sequence[int] | None = None) -> None:
        for thread in self._chosen(ranks):
            thread.kill()

    def status(self) -> list[RankStatus]:
        return [thread.status() for thread in self._threads]

    def _chosen(self, ranks: Sequence[int] | None) -> list[_RankThread]:
        return self._threads if ranks is None else [self._threads[rank] for rank in ranks]


class InlinePlace(Place):
    """A rank that is a thread."""

    def __init__(
        self, role: str, rank: int, namespace: dict[str, Any], on_event: OnEvent | None, notices: set[str]
    ) -> None:
        self.role, self.rank, self.namespace, self._on_event = role, rank, namespace, on_event
        self._notices = notices

    def emit(self, kind: EventKind, data: Any) -> None:
        if self._on_event is not None:
            self._on_event(Event(kind, self.role, self.rank, data))

    def noticed(self, word: str) -> bool:
        return word in self._notices

    def format(self, value: Any) -> dict[str, Any]:
        return mime_bundle(value)


class _RankThread:
    """One rank: a daemon thread that takes calls from a queue, and the variables it keeps between them."""

    def __init__(self, role: str, rank: int) -> None:
        self.role, self.rank = role, rank
        self.alive = True
        self.namespace: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
        self._calls: queue.SimpleQueue[_RankCall | None] = queue.SimpleQueue()
        self._running: Future[Any] | None = None
        self.notices: set[str] = set()  # left for the call that runs
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._loop, name=f"paibook-{role}-{rank}", daemon=True)
        self._thread.start()

    def submit(
        self, function: Callable[..., Any], args: tuple[Any, ...], on_event: OnEvent | None, on_begun: OnBegun | None
    ) -> Pending[Any]:
        future: Future[Any] = Future()
        if not self.alive:
            future.set_exception(RankLost(self.role, self.rank, "it was killed"))
        else:
            self._calls.put((future, function, args, on_event, on_begun))
        return future  # type: ignore[return-value]

    def interrupt(self) -> None:
        # Takes effect at the thread's next bytecode; a blocking call into C is not cut short.
        with self._lock:
            if self._running is not None:
                _raise_in(self._thread, KeyboardInterrupt)

    def kill(self) -> None:
        self.alive = False
        with self._lock:
            running = self._running
        self.interrupt()
        self._calls.put(None)
        if running is not None and not running.done():
            running.set_exception(RankLost(self.role, self.rank, "it was killed"))

    def stop(self) -> None:
        self.alive = False
        self._calls.put(None)

    def status(self) -> RankStatus:
        state = "lost" if not self.alive else "busy" if self._running is not None else "idle"
        return RankStatus(self.role, self.rank, socket.gethostname(), os.getpid(), state)

    def _loop(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                self._run(*call)
            except KeyboardInterrupt:
                continue  # an interrupt that came just after the call it was meant for

    def _run(
        self,
        future: Future[Any],
        function: Callable[..., Any],
        args: tuple[Any, ...],
        on_event: OnEvent | None,
        on_begun: OnBegun | None,
    ) -> None:
        self.notices = set()
        place = InlinePlace(self.role, self.rank, self.namespace, on_event, self.notices)
        with self._lock:
            self._running = future
        outcome: Any = None
        error: BaseException | None = None
        try:
            if on_begun is not None:
                on_begun(self.rank)
            with captured(lambda t: place.emit("stdout", t), lambda t: place.emit("stderr", t)):
                outcome = function(place, *args)
        except BaseException as raised:
            error = raised
        finally:
            with self._lock:
                self._running = None
        if future.done():
            return
        if error is None:
            future.set_result(outcome)
        else:
            future.set_exception(error)


_RankCall = tuple[Future[Any], Callable[..., Any], tuple[Any, ...], OnEvent | None, OnBegun | None]


def _raise_in(thread: threading.Thread, error: type[BaseException]) -> None:
    """Raise ``error`` in a thread, at its next bytecode."""
    if thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(error))


def _settle(future: Future[Any], outcome: Any, error: BaseException | None) -> None:
    try:
        if error is None:
            future.set_result(outcome)
        else:
            future.set_exception(error)
    except InvalidStateError:
        return  # it was released while it ended


def _value(argument: Any) -> Any:
    if isinstance(argument, Future):
        return argument.result()
    if isinstance(argument, (list, tuple)):
        return type(argument)(_value(item) for item in argument)
    return argument
