"""Threads of one worker take turns at its connections: a request and its answer must not meet another's."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar


class Shared(Protocol):
    """Something that several threads may use.

    Attributes:
        turn: Held by the thread that does.
    """

    turn: threading.RLock


S = TypeVar("S", bound=Shared)
P = ParamSpec("P")
T = TypeVar("T")


def one_at_a_time(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """A method that waits until no other thread is in one that shares its object's ``turn``."""

    @functools.wraps(method)
    def taking_turns(self: S, *args: P.args, **named: P.kwargs) -> T:
        with self.turn:
            return method(self, *args, **named)

    return taking_turns
