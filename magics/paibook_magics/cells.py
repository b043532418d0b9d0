"""The three cell magics: parse, build the plan, run it, show it."""

from __future__ import annotations

import argparse
import asyncio
import re
import shlex
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from paibook.detached.handle import DetachedRun
from paibook.errors import PaibookError, PlanError, ProgramError
from paibook.plan import Plan
from paibook.run import Run
from paibook.session import Session
from paibook_magics.console import Console
from paibook_magics.explaining import Explaining
from paibook_magics.following import Stopped, follow, follow_blocking
from paibook_magics.mapreduce_planning import input_variables
from paibook_magics.options import parser
from paibook_magics.picture import plan_bundle
from paibook_magics.planning import plan_cell
from paibook_magics.results import keep
from paibook_magics.sizes import describe

RECENT = 20
MAGICS = ("pai_mapreduce", "pai_allreduce", "pai_ps")


@dataclass(frozen=True)
class Started:
    """A run that has begun, what shows it, and the options that concern only the notebook."""

    run: Run
    console: Console
    options: argparse.Namespace


Begun = Started | DetachedRun | None  # None: the cell only showed its plan


@dataclass(frozen=True)
class Recent:
    """A cell that has run in this notebook, as it can run again."""

    magic: str
    line: str
    body: str
    name: str

    @property
    def title(self) -> str:
        """What people would call it: where it stood, its magic, and its first line of code."""
        code = next((text.strip() for text in self.body.splitlines() if text.strip()), "")
        return shorten(f"{self.name.removeprefix('Cell ')} %%{self.magic} {self.line} · {code}", 100, placeholder="…")


class Cells:
    """Runs ``%%pai_*`` cells for one notebook.

    Args:
        shell: The notebook's IPython.
        session: Where the plans go.
    """

    def __init__(self, shell: InteractiveShell, session: Session) -> None:
        self.shell = shell
        self.session = session
        self.matcher: Any = None  # completes names of the ranks, where the shell completes at all
        self.search: Any = None  # studies over these cells
        self.lines: Any = None  # the line magics
        self.inspection: Any = None  # shows what they are, where the shell is a kernel's
        self.recent: deque[Recent] = deque(maxlen=RECENT)  # the latest first
        self._following: set[asyncio.Task[None]] = set()

    async def run_cell(self, magic: str, line: str, body: str) -> Run | DetachedRun | None:
        """Run a cell and wait for it on the event loop, so that widgets stay alive meanwhile."""
        started = self._start(Recent(magic, self._expand(line), body, self.cell_name()))
        if started is None or isinstance(started, DetachedRun):
            return started
        if started.options.noblock:
            self._follow_later(started)
            return started.run
        await follow(started.run, started.console)
        self._keep(started)
        return None

    async def attach(self, run_id: str) -> None:
        """Follow a run that another process drives, on the event loop; ``{name}`` and ``$name`` are the notebook's."""
        await self.lines.attach(self._expand(run_id))

    def run_cell_blocking(self, magic: str, line: str, body: str) -> DetachedRun | None:
        """The same without an event loop: plain IPython, and cells nested in other magics such as ``%%time``."""
        if parser(magic).parse_line(line).noblock:
            raise PlanError("--noblock needs a notebook's event loop; here, leave it out")
        started = self._start(Recent(magic, line, body, self.cell_name()))
        if started is None or isinstance(started, DetachedRun):
            return started
        follow_blocking(started.run, started.console)
        self._keep(started)
        return None

    def run_again(self, cell: Recent, hyperparameters: list[str], on_end: Callable[[Run], None]) -> Run:
        """Run a cell that has run before with other words of ``--hp``, shown where the caller's context stands.

        Args:
            cell: One of ``recent``.
            hyperparameters: Take the place of the cell's own.
            on_end: Called with the run when it has ended and is shown.

        Raises:
            PaibookError: The cell cannot run so.
        """
        print(f"{cell.name.removeprefix('Cell ')} %%{cell.magic} with --hp {shlex.join(hyperparameters)}")
        started = self._start(cell, hyperparameters)
        if started is None:
            raise PlanError("the cell only shows its plan (--dry-run); run it without that first")
        if isinstance(started, DetachedRun):
            raise PlanError(f"the cell is detached; it runs as {started.id}, and `%pai_runs result` fetches its result")
        self._follow_later(started).add_done_callback(lambda _task: on_end(started.run))
        return started.run

    def plan(self, cell: Recent, hyperparameters: list[str] | None = None) -> tuple[Plan, argparse.Namespace]:
        """The plan of a cell; ``hyperparameters`` take the place of its own words of ``--hp``.

        Raises:
            PlanError, SyntaxError: As ``plan_cell``.
        """
        return plan_cell(
            cell.magic,
            cell.line,
            cell.body,
            self.shell.user_ns,
            self.session.cluster.reference,
            cell.name,
            self.shell.transform_cell,
            hyperparameters,
        )

    def _follow_later(self, started: Started) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._follow_in_background(started))
        self._following.add(task)  # the loop itself keeps only weak references
        task.add_done_callback(self._following.discard)
        return task

    def _remember(self, cell: Recent) -> None:
        same = [known for known in self.recent if (known.magic, known.body) == (cell.magic, cell.body)]
        for known in same:
            self.recent.remove(known)
        self.recent.appendleft(cell)

    def _start(self, cell: Recent, hyperparameters: list[str] | None = None) -> Begun:
        try:
            return self._start_checked(cell, hyperparameters)
        except SyntaxError as error:  # IPython has shown those that parsing finds; `return` outside a function is left
            raise ProgramError(f"{error.filename}, line {error.lineno}: {error.msg}") from None

    def _start_checked(self, cell: Recent, hyperparameters: list[str] | None) -> Begun:
        plan, options = self.plan(cell, hyperparameters)
        if options.dry_run:
            self.session.check(plan)
            self.shell.display_pub.publish(plan_bundle(plan, self.variables(plan)))
            return None
        variables = self.variables(plan)
        if plan.detach:
            if options.explain:
                raise PlanError("--explain shows a run of this kernel; of a --detach run, `%pai_explain ID` does")
            return self._detach(plan, variables, cell, options)
        explaining = Explaining(self.lines.panels) if options.explain and self.lines is not None else None
        console = Console(options.group_outputs, options.progress_after, explaining=explaining)
        run = self.session.run(plan, variables, console.on_event, console.on_progress)
        self._remember(cell)
        try:
            console.watch(run)
            _say_pushed(run, variables)
            if options.local:
                self._run_here(plan)
        except BaseException:
            run.cancel()  # nobody would follow it
            raise
        return Started(run, console, options)

    def _detach(self, plan: Plan, variables: dict[str, Any], cell: Recent, options: argparse.Namespace) -> DetachedRun:
        run = self.session.detach(plan, variables)
        self._remember(cell)
        _say_pushed(run, variables)
        end = run.id[-4:]
        print(
            f"goes on without this kernel; `%pai_runs result {end}` fetches its result, `%pai_runs stop {end}` ends it"
        )
        if options.local:
            self._run_here(plan)
        return run

    def _expand(self, line: str) -> str:
        # As IPython does for its own magics: {name} and $name. PAI's JSON has braces of its own.
        return line if re.search(r'\{\s*"', line) else str(self.shell.var_expand(line))

    def cell_name(self) -> str:
        """What the running cell is called."""
        # The running cell is the last one recorded; execution_count has moved on already in some versions.
        return f"Cell In[{len(self.shell.user_ns.get('In', [''])) - 1}]"

    def variables(self, plan: Plan) -> dict[str, Any]:
        """The notebook's variables that a plan takes along."""
        names = {*plan.push, *input_variables(plan)}
        return {name: self.shell.user_ns[name] for name in names if name in self.shell.user_ns}

    def _run_here(self, plan: Plan) -> None:
        value = plan.program.execute(self.shell.user_ns)
        if value is not None:
            print(f"[here] {value!r}")

    def _keep(self, started: Started) -> None:
        named = started.run.plan.runtime == "mapreduce"  # its plan says where the outputs go
        shown = keep(started.run, self.shell.user_ns, None if named else started.options.out)
        if shown is not None:
            self.shell.displayhook(shown)

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


def _say_pushed(run: Run | DetachedRun, variables: dict[str, Any]) -> None:
    if run.pushed:
        print("push", ", ".join(f"{name}: {describe(variables[name], size)}" for name, size in run.pushed.items()))


def help_text(magic: str) -> str:
    """What ``%%pai_ps?`` shows."""
    return parser(magic).format_help()
