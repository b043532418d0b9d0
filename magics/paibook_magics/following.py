"""Following a run: the cell waits for it, shows what comes, and stops it when the user says so."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from paibook.errors import RunCancelled
from paibook.run import Run
from paibook_magics.console import Console

TICK_SECONDS = 0.05
STOP_SECONDS = 30.0  # a rank that is being sent hundreds of megabytes stops when it has read them


class Stopped(KeyboardInterrupt):
    """Stop, after the run has been stopped; shown without the path it took through paibook."""

    def _render_traceback_(self) -> list[str]:
        return [f"KeyboardInterrupt: {self}"]


# Front ends and tools know it by this name.
Stopped.__name__ = "KeyboardInterrupt"


async def follow(run: Run, console: Console) -> None:
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


def follow_blocking(run: Run, console: Console) -> None:
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


def _how_it_stopped(run: Run) -> str:
    if not run.done():
        return "the run does not stop; `%pai_cluster restart` ends its processes"
    error = run.exception(0)
    return str(error) if isinstance(error, RunCancelled) else "the run had ended already"


def _wake(loop: asyncio.AbstractEventLoop, ended: asyncio.Event, _run: Run) -> None:
    loop.call_soon_threadsafe(ended.set)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        pass


async def _until_stopped(run: Run, ended: asyncio.Event) -> None:
    deadline = time.monotonic() + STOP_SECONDS
    while not run.done() and time.monotonic() < deadline:
        try:
            await _wait(ended, TICK_SECONDS)
        except asyncio.CancelledError:
            continue  # Stop pressed twice: the run is being stopped already
