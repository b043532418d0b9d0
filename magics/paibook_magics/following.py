"""Following a run: the cell waits for it, shows what comes, and stops it when the user says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from paibook.attached import AttachedRun
from paibook.errors import RunCancelled

TICK_SECONDS = 0.05
STOP_SECONDS = 30.0  # a rank that is being sent hundreds of megabytes stops when it has read them


class Followed(Protocol):
    """What goes on in the background: a run, or a search."""

    def done(self) -> bool: ...
    def cancel(self) -> None: ...
    def result(self, timeout: float | None = None) -> Any: ...
    def exception(self, timeout: float | None = None) -> BaseException | None: ...
    def add_done_callback(self, callback: Callable[[Any], None]) -> None: ...


class Display(Protocol):
    """What shows it."""

    def tick(self) -> None: ...
    def finish(self) -> None: ...


class Stopped(KeyboardInterrupt):
    """Stop, after the run has been stopped; shown without the path it took through paibook."""

    def _render_traceback_(self) -> list[str]:
        return [f"KeyboardInterrupt: {self}"]


# Front ends and tools know it by this name.
Stopped.__name__ = "KeyboardInterrupt"


async def follow(run: Followed, console: Display) -> None:
    """Show a run until it ends; raise what it raised. Being cancelled (Stop) cancels the run."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    run.add_done_callback(partial(_wake, loop, ended))
    try:
        while not run.done():
            await _wait(ended, TICK_SECONDS)
            console.tick()
    except (asyncio.CancelledError, KeyboardInterrupt):
        run.cancel()
        await _until_stopped(run, ended)
        console.finish()
        raise Stopped(_how_it_stopped(run)) from None
    console.finish()
    run.result()


def follow_blocking(run: Followed, console: Display) -> None:
    """The same, for a caller without an event loop."""
    try:
        while not run.done():
            time.sleep(TICK_SECONDS / 5)
            console.tick()
    except KeyboardInterrupt:
        run.cancel()
        run.exception(STOP_SECONDS)
        console.finish()
        raise Stopped(_how_it_stopped(run)) from None
    console.finish()
    run.result()


async def follow_attached(run: AttachedRun, console: Display) -> None:
    """Show a run that another process drives until it ends. Stop ends the showing; the run itself goes on."""
    try:
        while not run.done():
            await asyncio.sleep(TICK_SECONDS)
            console.tick()
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise _left(run, console) from None
    console.finish()


def follow_attached_blocking(run: AttachedRun, console: Display) -> None:
    """The same, for a caller without an event loop."""
    try:
        while not run.done():
            time.sleep(TICK_SECONDS / 5)
            console.tick()
    except KeyboardInterrupt:
        raise _left(run, console) from None
    console.finish()


def _left(run: AttachedRun, console: Display) -> Stopped:
    run.detach()
    console.finish()
    return Stopped(f"run {run.id} goes on; `%pai_runs attach {run.id}` follows it again")


def _how_it_stopped(run: Followed) -> str:
    if not run.done():
        return "the run does not stop; `%pai_cluster restart` ends its processes"
    error = run.exception(0)
    return str(error) if isinstance(error, RunCancelled) else "the run had ended already"


def _wake(loop: asyncio.AbstractEventLoop, ended: asyncio.Event, _run: Any) -> None:
    loop.call_soon_threadsafe(ended.set)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        pass


async def _until_stopped(run: Followed, ended: asyncio.Event) -> None:
    deadline = time.monotonic() + STOP_SECONDS
    while not run.done() and time.monotonic() < deadline:
        try:
            await _wait(ended, TICK_SECONDS)
        except asyncio.CancelledError:
            continue  # Stop pressed twice: the run is being stopped already
