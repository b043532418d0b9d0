"""Tasks on a Dask cluster: futures with retries and locality, and what they say on the way."""

from __future__ import annotations

import base64
import ctypes
import logging
import os
import pickle
import sys
import threading
import uuid
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from typing import Any, TypeVar

import cloudpickle
from distributed import Client, Future, get_worker
from distributed.scheduler import KilledWorker

from paibook.clusters.capture import captured
from paibook.clusters.contract import Event, EventKind, OnEvent, Pending, Tasks
from paibook.clusters.dask_calls import ask
from paibook.clusters.delayed import delayed_values
from paibook.clusters.engine_place import decode_event, encode_event
from paibook.clusters.task_events import speaking
from paibook.errors import ClusterError, RunCancelled, RunError
from paibook.metrics import Recorder, recording

T = TypeVar("T")
STOP_SECONDS = 3.0
IMPORT_SECONDS = 30.0  # an import may take before a task is stopped in the middle of it
LOOK_SECONDS = 0.05
logger = logging.getLogger(__name__)


class DaskTasks(Tasks):
    """Submits to one client; events come back over a Dask topic of this session.

    Args:
        client: Connected.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._topic = f"paibook-tasks-{uuid.uuid4().hex}"
        self._listeners: dict[str, OnEvent] = {}
        client.subscribe_topic(self._topic, self._on_event)

    @property
    def slots(self) -> int:
        return max(1, sum(self._client.nthreads().values()))

    def submit(
        self,
        function: Callable[..., T],
        *args: Any,
        label: str = "task",
        number: int = 0,
        on_event: OnEvent | None = None,
    ) -> Pending[T]:
        key = f"{label}-{number}-{uuid.uuid4().hex}"
        if on_event is not None:
            self._listeners[key] = on_event
        call = _Call(function, label, number, key, self._topic)
        values = [_dask_value(argument) for argument in args]
        with warnings.catch_warnings():
            # Data is sent with its task, not scattered: what is scattered is lost with the worker that holds it.
            warnings.filterwarnings("ignore", message="Sending large graph")
            future = self._client.submit(call, *values, key=key, pure=False)
        return DaskPending(future, f"{label} {number}")  # type: ignore[return-value]

    def release(self, pending: Sequence[Pending[Any]]) -> None:
        futures = [p.future for p in pending if isinstance(p, DaskPending)]
        running = [f.key for f in futures if not f.done()]
        self._client.cancel(futures, force=True)
        for future in futures:
            self._listeners.pop(future.key, None)
        if running:
            try:
                ask(self._client, _stop_tasks, running, on_error="ignore", timeout=STOP_SECONDS)
            except ClusterError:
                # Nobody waits for these tasks any more, and Stop must not wait for a wedged worker.
                logger.warning("tasks that were cancelled may still run", exc_info=True)

    def forget(self, pending: Pending[Any]) -> None:
        if isinstance(pending, DaskPending):
            pending.future.release()

    def shares(self, path: str) -> bool:
        return all(ask(self._client, os.path.exists, path).values())

    def partitions(self, collection: Any) -> list[Pending[Any]]:
        futures = self._client.compute(delayed_values(collection))
        return [DaskPending(future, f"partition {i}") for i, future in enumerate(futures)]  # type: ignore[misc]

    def _on_event(self, event: tuple[Any, Any]) -> None:
        _time, message = event
        listener = self._listeners.get(message["key"])
        if listener is not None:
            kind: EventKind = message["kind"]
            data = decode_event(kind, pickle.loads(base64.b64decode(message["data"])))
            listener(Event(kind, message["label"], message["number"], data))


class DaskPending:
    """A Dask future with paibook's errors."""

    def __init__(self, future: Future, name: str) -> None:
        self.future = future
        self._name = name

    def result(self, timeout: float | None = None) -> Any:
        error = self.exception(timeout)
        if error is not None:
            raise error
        try:
            return self.future.result(timeout)
        except CancelledError as cancelled:
            raise RunCancelled("the run was stopped") from cancelled

    def exception(self, timeout: float | None = None) -> BaseException | None:
        try:
            error = self.future.exception(timeout)
        except CancelledError:
            return RunCancelled("the run was stopped")
        if isinstance(error, KilledWorker):
            return RunError(
                f"{self._name} ended its worker process every time it ran ({error.allowed_failures + 1} times): its "
                "code or one of its records crashes Python or exhausts memory"
            )
        return error

    def done(self) -> bool:
        return bool(self.future.done())

    def cancel(self) -> bool:
        self.future.cancel(force=True)
        return True

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self.future.add_done_callback(lambda _future: callback(self))


class _Stop(BaseException):
    """Raised inside a running task to end it; outside ``Exception``, so that user code does not swallow it."""


_running: dict[str, int] = {}
_running_lock = threading.Lock()


class _Call:
    """The function as Dask runs it: its prints and metrics become events, and ``_stop_tasks`` can end it."""

    def __init__(self, function: Callable[..., Any], label: str, number: int, key: str, topic: str) -> None:
        self._function = cloudpickle.dumps(function)
        self._label, self._number, self._key, self._topic = label, number, key, topic

    def __call__(self, *args: Any) -> Any:
        worker = get_worker()

        def say(kind: EventKind, data: Any) -> None:
            encoded = base64.b64encode(pickle.dumps(encode_event(kind, data))).decode()
            message = {"key": self._key, "label": self._label, "number": self._number, "kind": kind, "data": encoded}
            worker.log_event(self._topic, message)

        with _running_lock:
            _running[self._key] = threading.get_ident()
        try:
            function = pickle.loads(self._function)
            recorder = Recorder(lambda batch: say("metric", batch), self._number)
            with captured(lambda t: say("stdout", t), lambda t: say("stderr", t)), recording(recorder), speaking(say):
                return function(*args)
        except _Stop:
            return None  # nobody waits for this result any more
        finally:
            with _running_lock:
                _running.pop(self._key, None)


def _stop_tasks(keys: list[str], patience: float = IMPORT_SECONDS) -> None:
    """End running tasks; one that is importing a module may finish that first."""
    importing = []
    with _running_lock:
        for key in keys:
            thread = _running.get(key)
            if thread is None:
                continue
            if patience > 0 and _imports(thread):
                importing.append(key)
            else:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_Stop))
    if importing:
        later = threading.Timer(LOOK_SECONDS, _stop_tasks, (importing, patience - LOOK_SECONDS))
        later.daemon = True
        later.start()


def _imports(thread: int) -> bool:
    """Whether a thread is inside an import, which must not be cut off: a library such as pandas that was half imported
    cannot be imported again, so that no task that needs it would run in this process any more."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _dask_value(argument: Any) -> Any:
    if isinstance(argument, DaskPending):
        return argument.future
    if isinstance(argument, (list, tuple)) and any(isinstance(item, (DaskPending, list, tuple)) for item in argument):
        return [_dask_value(item) for item in argument]
    return argument
