"""Interrupts that reach an engine late, or early: only the call they name hears of them."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from paibook.clusters import engine_interrupt
from paibook.clusters.engine_interrupt import CALL, Interrupts

WAIT = 20


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


class Kernel:
    """What ``Interrupts`` needs of an ipykernel: it sends itself the signal, and answers."""

    def __init__(self) -> None:
        self.replies: list[str] = []
        self.session = SimpleNamespace(send=lambda stream, kind, *args, **kwargs: self.replies.append(kind))
        self.control_handlers: dict[str, Callable[..., Any]] = {"interrupt_request": self.interrupt_request}

    async def interrupt_request(self, stream: Any, ident: Any, parent: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        self.replies.append("interrupt_reply")

    def ask(self, **content: str) -> None:
        asyncio.run(self.control_handlers["interrupt_request"](None, None, {"content": content}))


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def interrupts(kernel: Kernel) -> Interrupts:
    made = Interrupts()
    made.heed(kernel)
    return made


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The library that is being imported; empty it to end the import."""
    found = ["torch"]
    monkeypatch.setattr(engine_interrupt, "library_in_import", lambda frame: found[0] if found else None)
    return found


@pytest.mark.parametrize("content", [{CALL: "a"}, {}])
def test_the_call_that_runs_is_interrupted(kernel: Kernel, interrupts: Interrupts, content: dict[str, str]) -> None:
    interrupts.begin("a")
    with pytest.raises(KeyboardInterrupt):
        kernel.ask(**content)
    interrupts.end()


def test_a_late_request_does_not_reach_the_next_call(kernel: Kernel, interrupts: Interrupts) -> None:
    interrupts.begin("a")
    interrupts.end()
    kernel.ask(call="a")
    interrupts.begin("b")
    kernel.ask(call="a")
    interrupts.end()
    assert kernel.replies == ["interrupt_reply"] * 2


def test_a_signal_is_heeded_after_a_late_request(kernel: Kernel, interrupts: Interrupts) -> None:
    interrupts.begin("b")
    kernel.ask(call="a")
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    interrupts.end()


def test_a_request_before_the_call_is_remembered(kernel: Kernel, interrupts: Interrupts) -> None:
    kernel.ask(call="a")
    with pytest.raises(KeyboardInterrupt):
        interrupts.begin("a")
    interrupts.end()
    interrupts.begin("b")
    interrupts.end()


def test_a_signal_of_somebody_elses_means_what_runs(interrupts: Interrupts) -> None:
    interrupts.begin("a")
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    interrupts.end()
    os.kill(os.getpid(), signal.SIGINT)  # between calls it means nothing


def test_an_interrupt_during_the_import_of_a_library_is_raised_when_it_has_ended(
    kernel: Kernel, interrupts: Interrupts, inside: list[str]
) -> None:
    interrupts.begin("a")
    kernel.ask(call="a")
    kernel.ask(call="a")
    time.sleep(0.1)
    threading.Timer(0.1, inside.pop).start()
    with pytest.raises(KeyboardInterrupt):
        time.sleep(WAIT)
    assert not inside
    interrupts.end()


def test_an_interrupt_that_is_held_dies_with_its_call(
    kernel: Kernel, interrupts: Interrupts, inside: list[str]
) -> None:
    interrupts.begin("a")
    kernel.ask(call="a")
    interrupts.end()
    interrupts.begin("b")
    inside.clear()
    time.sleep(0.1)
    interrupts.end()
