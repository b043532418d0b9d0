"""What runs on an engine when a function is applied to a rank; imported by name in the engine's process."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import cloudpickle

from paibook.clusters.contract import EventKind, Place
from paibook.clusters.display import mime_bundle
from paibook.clusters.engine_interrupt import Interrupts
from paibook.clusters.engine_notices import Notices
from paibook.metrics import Metric

EVENT_MIME = "application/vnd.paibook.event"
T = TypeVar("T", Interrupts, Notices)


class EnginePlace(Place):
    """A rank that is an ipyparallel engine; its namespace is the engine's user namespace.

    Attributes:
        kernel: The engine's.
        call: Message id of the call that runs.
    """

    def __init__(self, role: str, rank: int) -> None:
        from IPython import get_ipython

        shell = get_ipython()
        self.role = role
        self.rank = rank
        self.namespace: dict[str, Any] = shell.user_ns
        self.kernel = shell.kernel
        # Kept here, because other threads that emit have no current message of their own.
        self._parent = self.kernel.get_parent()
        self.call: str = self._parent["header"]["msg_id"]
        self._notices = _of_engine(Notices, self.kernel)

    def emit(self, kind: EventKind, data: Any) -> None:
        content = {"data": {EVENT_MIME: {"kind": kind, "data": encode_event(kind, data)}}, "metadata": {}}
        self.kernel.session.send(
            self.kernel.iopub_socket,
            "display_data",
            content=content,
            parent=self._parent,
            ident=self.kernel._topic("display_data"),
        )

    def noticed(self, word: str) -> bool:
        return word in self._notices.left_for(self.call)

    def format(self, value: Any) -> dict[str, Any]:
        return mime_bundle(value)


_of_process: dict[tuple[int, type], Any] = {}  # a forked child is no engine


def _of_engine(kind: type[T], kernel: Any) -> T:
    """This engine's only one of a kind, made at the first call; it heeds the kernel's control messages from then on."""
    key = os.getpid(), kind
    found: T | None = _of_process.get(key)
    if found is None:
        found = _of_process[key] = kind()
        found.heed(kernel)
    return found


def encode_event(kind: EventKind, data: Any) -> Any:
    """Event data as JSON-able values."""
    if kind == "metric":
        return [[m.step, m.name, m.value, m.rank, m.time] for m in data]
    return data


def decode_event(kind: EventKind, data: Any) -> Any:
    """The inverse of ``encode_event``."""
    if kind == "metric":
        return [Metric("", step, name, float(value), rank, time) for step, name, value, rank, time in data]
    return data


@dataclass(frozen=True)
class Packed:
    """A function and its arguments, pickled once for however many ranks.

    Attributes:
        data: The pickle of ``(function, args)``.
        buffers: What it leaves out (protocol 5): large arrays and bytes, which travel as they are.
        writable: Which of them the function may write to.
    """

    data: bytes
    buffers: tuple[bytes, ...]
    writable: tuple[bool, ...]

    @classmethod
    def of(cls, function: Callable[..., Any], args: tuple[Any, ...]) -> Packed:
        """Pickle; what is writable is copied, so that a later change in the notebook does not travel."""
        found: list[pickle.PickleBuffer] = []
        data: bytes = cloudpickle.dumps((function, args), protocol=5, buffer_callback=found.append)
        views = [item.raw() for item in found]
        buffers = tuple(map(_as_bytes, views))
        return cls(data, buffers, tuple(not view.readonly for view in views))

    def message(self, role: str, rank: int, further: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments of ``invoke`` for one rank; memoryviews are not copied on their way to the socket."""
        head: bytes = cloudpickle.dumps((role, rank, further, self.writable), protocol=5)
        return (head, memoryview(self.data), *(memoryview(buffer) for buffer in self.buffers))


def _as_bytes(view: memoryview) -> bytes:
    whole = view.obj
    return whole if isinstance(whole, bytes) and len(whole) == view.nbytes else bytes(view)


def invoke(head: bytes, data: memoryview, *buffers: memoryview) -> bytes:
    """Run ``function(place, *args)`` and return its pickled outcome: ``(True, result)`` or ``(False, exception)``.

    Args:
        head, data, buffers: See ``Packed.message``.
    """
    role, rank, further, writable = pickle.loads(head)
    filled = [bytearray(b) if w else b for b, w in zip(buffers, writable, strict=True)]
    function, args = pickle.loads(data, buffers=filled)
    args += further
    place = EnginePlace(role, rank)
    interrupts = _of_engine(Interrupts, place.kernel)
    try:
        try:
            interrupts.begin(place.call)
            outcome = (True, function(place, *args))
        finally:
            interrupts.end()
    except BaseException as error:
        interrupts.end()
        outcome = (False, _clean(error))
    return _dump(outcome)


def _clean(error: BaseException) -> BaseException:
    error.__traceback__ = None
    return KeyboardInterrupt() if isinstance(error, KeyboardInterrupt) else error


def _dump(outcome: tuple[bool, Any]) -> bytes:
    try:
        return cloudpickle.dumps(outcome, protocol=5)
    except Exception as error:  # whatever a user's object raises while it is pickled
        what = type(outcome[1]).__name__
        return cloudpickle.dumps((False, TypeError(f"a {what} cannot be sent back from the rank: {error}")))
