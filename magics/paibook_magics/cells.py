"""The three cell magics: parse, build the plan, run it, show it."""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from paibook.errors import PaibookError, PlanError, ProgramError, RunCancelled
from paibook.plan import Plan
from paibook.run import Run
from paibook.session import Session
from paibook_magics.console import Console
from paibook_magics.options import parser
from paibook_magics.picture import plan_bundle
from paibook_magics.planning import input_variables, is_path, plan_cell
from paibook_magics.sizes import describe

TICK_SECONDS = 0.05
STOP_SECONDS = 30.0  # a rank that is being sent hundreds of megabytes stops when it has read them
MAGICS = ("pai_mapreduce", "pai_allreduce", "pai_ps")


class Stopped(KeyboardInterrupt):
    """Stop, after the run has been stopped; shown without the path it took through paibook."""

    def _render_traceback_(self) -> list[str]:
        return [f"KeyboardInterrupt: {self}"]


# Front ends and tools know it by this name.
Stopped.__name__ = "KeyboardInterrupt"


@dataclass(frozen=True)
class Started:
    """A run that has begun, what shows it, and the options that concern only the notebook."""

    run: Run
    console: Console
    options: argparse.Namespace


class Cells:
    """Runs ``%%pai_*`` cells for one notebook.

    Args:
        shell: The notebook's IPython.
        session: Where the plans go.
    """

    def __init__(self, shell: InteractiveShell, session: Session) -> None:
        self.shell = shell
        self.session = session
        self._following: set[asyncio.Task[None]] = set()

    async def run_cell(self, magic: str, line: str, body: str) -> Run | None:
        """Run a cell and wait for it on the event loop, so that widgets stay alive meanwhile."""
        started = self._start(magic, self._expand(line), body)
        if started is None:
            return None
        if started.options.noblock:
            task = asyncio.get_running_loop().create_task(self._follow_in_background(started))
            self._following.add(task)  # the loop itself keeps only weak references
            task.add_done_callback(self._following.discard)
            return started.run
        await follow(started.run, started.console)
        self._keep(started)
        return None

    def run_cell_blocking(self, magic: str, line: str, body: str) -> None:
        """The same without an event loop: plain IPython, and cells nested in other magics such as ``%%time``."""
        if parser(magic).parse_line(line).noblock:
            raise PlanError("--noblock needs a notebook's event loop; here, leave it out")
        started = self._start(magic, line, body)
        if started is not None:
            follow_blocking(started.run, started.console)
            self._keep(started)

    def _start(self, magic: str, line: str, body: str) -> Started | None:
        try:
            return self._start_checked(magic, line, body)
        except SyntaxError as error:  # IPython has shown those that parsing finds; `return` outside a function is left
            raise ProgramError(f"{error.filename}, line {error.lineno}: {error.msg}") from None

    def _start_checked(self, magic: str, line: str, body: str) -> Started | None:
        plan, options = plan_cell(
            magic,
            line,
            body,
            self.shell.user_ns,
            self.session.cluster.reference,
            self._cell_name(),
            self.shell.transform_cell,
        )
        if options.dry_run:
            self.session.check(plan)
            self.shell.display_pub.publish(plan_bundle(plan))
            return None
        console = Console(options.group_outputs, options.progress_after)
        variables = self._variables(plan)
        run = self.session.run(plan, variables, console.on_event, console.on_progress)
        try:
            console.watch(run)
            if run.pushed:
                print("push", ", ".join(f"{name}: {describe(variables[name], run.pushed[name])}" for name in plan.push))
            if options.local:
                self._run_here(plan)
        except BaseException:
            run.cancel()  # nobody would follow it
            raise
        return Started(run, console, options)

    def _expand(self, line: str) -> str:
        # As IPython does for its own magics: {name} and $name. PAI's JSON has braces of its own.
        return line if re.search(r'\{\s*"', line) else str(self.shell.var_expand(line))

    def _cell_name(self) -> str:
        # The running cell is the last one recorded; execution_count has moved on already in some versions.
        return f"Cell In[{len(self.shell.user_ns.get('In', [''])) - 1}]"

    def _variables(self, plan: Plan) -> dict[str, Any]:
        names = {*plan.push, *input_variables(plan)}
        return {name: self.shell.user_ns[name] for name in names if name in self.shell.user_ns}

    def _run_here(self, plan: Plan) -> None:
        value = plan.program.execute(self.shell.user_ns)
        if value is not None:
            print(f"[here] {value!r}")

    def _keep(self, started: Started) -> None:
        run, out = started.run, started.options.out
        result = run.result()
        self._keep_pulled(getattr(result, "pulled", {}), getattr(result, "differs", ()))
        if out is not None and not is_path(out):
            self.shell.user_ns[out] = _by_rank(result) if run.plan.runtime == "allreduce" else result
            print(_kept(run, out, result))
        elif run.plan.runtime != "allreduce" and result is not None:
            self.shell.displayhook(_short(result))

    def _keep_pulled(self, pulled: Mapping[str, Any], differs: Collection[str]) -> None:
        self.shell.user_ns.update(pulled)
        if pulled:
            print("pull", ", ".join(f"{name}: {describe(value)}" for name, value in pulled.items()))
        for name in sorted(differs):
            print(f"note: {name} differs between ranks; this is the lowest rank's ({name}@RANK: another's)")

    async def _follow_in_background(self, started: Started) -> None:
        run = started.run
        try:
            await follow(run, started.console)
            self._keep(started)
        except PaibookError as error:
            print(f"{run.id} {run.state}: {error}")
        except Stopped:
            print(f"{run.id} {run.state}")  # raised further, it would end the kernel's event loop
        except Exception as error:  # the user's own, on the inline cluster; run.result() raises it to whoever asks
            print(f"{run.id} {run.state}: {type(error).__name__}: {error}")


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


def _kept(run: Run, name: str, result: Any) -> str:
    seconds = (run.record.ended or time.time()) - run.record.started
    if run.plan.runtime == "mapreduce":
        return f"{name}: {len(result):,} records, {seconds:.1f} s"
    return (
        f"{name}: {'one value per rank' if run.plan.runtime == 'allreduce' else 'the trained tables'}, {seconds:.1f} s"
    )


def _by_rank(result: Any) -> list[Any]:
    return [result.values[rank] for rank in sorted(result.values)]


def _short(result: Any) -> Any:
    if isinstance(result, list) and len(result) > 20:
        return _Preview(result)
    return result


class _Preview:
    """The first records of a long list, and how many there are."""

    def __init__(self, records: list[Any]) -> None:
        self._records = records

    def __repr__(self) -> str:
        shown = ",\n ".join(repr(record) for record in self._records[:10])
        return f"[{shown},\n … {len(self._records):,} records in all; -o NAME keeps them]"


def help_text(magic: str) -> str:
    """What ``%%pai_ps?`` shows."""
    return parser(magic).format_help()
