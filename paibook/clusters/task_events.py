"""What a running task says beside what it prints: events, sent by whoever runs on its behalf."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from paibook.clusters.contract import EventKind

Say = Callable[[EventKind, Any], None]

_say: ContextVar[Say | None] = ContextVar("paibook_task_say", default=None)


@contextmanager
def speaking(say: Say) -> Iterator[None]:
    """Let ``emit`` reach ``say`` in this context."""
    token = _say.set(say)
    try:
        yield
    finally:
        _say.reset(token)


def emit(kind: EventKind, data: Any) -> None:
    """Send an event to whoever submitted the running task; nobody hears it outside of tasks."""
    say = _say.get()
    if say is not None:
        say(kind, data)
