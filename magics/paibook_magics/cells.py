"""The three cell magics: parse, build the plan, run it, show it."""

from __future__ import annotations

import argparse
import asyncio
import re
from dataclasses import dataclass
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from paibook.errors import PaibookError, PlanError, ProgramError
from paibook.plan import Plan
from paibook.run import Run
from paibook.session import Session
from paibook_magics.console import Console
from paibook_magics.following import Stopped, follow, follow_blocking
from paibook_magics.mapreduce_planning import input_variables
from paibook_magics.options import parser
from paibook_magics.picture import plan_bundle
from paibook_magics.planning import plan_cell
from paibook_magics.results import keep
from paibook_magics.sizes import describe

MAGICS = ("pai_mapreduce", "pai_allreduce", "pai_ps")


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
        self.matcher: Any = None  # completes names of the ranks, where the shell completes at all
        self.panels: Any = None  # that the line magics showed
        self.inspection: Any = None  # shows what they are, where the shell is a kernel's
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
            self.shell.display_pub.publish(plan_bundle(plan, self._variables(plan)))
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
        shown = keep(started.run, self.shell.user_ns, started.options.out)
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


def help_text(magic: str) -> str:
    """What ``%%pai_ps?`` shows."""
    return parser(magic).format_help()
