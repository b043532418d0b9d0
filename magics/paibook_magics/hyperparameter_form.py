"""``%pai_hp``: the form of a cell's hyperparameters, which runs the cell again with what was entered."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from paibook.errors import PaibookError, PlanError
from paibook.history import RunHistory
from paibook.hyperparameters import HyperParameters
from paibook.hyperparameters.fields import fields_of
from paibook.hyperparameters.model import from_words
from paibook.hyperparameters.values import flat, merged
from paibook.run import Run
from paibook_magics.cells import Cells, Recent
from paibook_magics.hyperparameter_words import split
from paibook_magics.lines import words
from paibook_magics.options import parser

if TYPE_CHECKING:
    from paibook.widgets.hyperparameters import HyperParameterForm
    from paibook.widgets.output import WidgetOutput

HP_HELP = """Show the form of a cell's hyperparameters; "Run with these" runs the cell that is chosen there.

  %pai_hp                    those of the latest %%pai_* cell that has some
  %pai_hp Adam               of a variable: a pai.HyperParameters subclass or instance, or a dict of defaults
  %pai_hp Adam lr=0.2        with values over it
"""
KEPT_FORMS = 8
LOOKED_AT = 50  # runs


class HyperParameterForms:
    """The forms of one notebook."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self._shown: deque[HyperParameterForm] = deque()

    def show(self, line: str) -> None:
        """Run ``%pai_hp LINE``."""
        from paibook.widgets.hyperparameters import HyperParameterForm
        from paibook.widgets.output import WidgetOutput

        name, model, values = self._chosen(words(line))
        paths = [view.path for view in fields_of(model)]
        last, label = last_used(self._cells.session.history, paths)
        recent = list(self._cells.recent)
        page = _Page() if getattr(self._cells.shell, "kernel", None) is not None else None
        form = HyperParameterForm(model, values, name, last, label, [cell.title for cell in recent])
        if page is None:
            print(form.static()["text/plain"])
            form.close()
            return
        output = WidgetOutput(form, form.static())

        def run(pairs: list[str], place: int) -> None:
            page.soon(lambda: self._run(form, output, recent[place], pairs))

        form.use(run, on_close=lambda: page.soon(lambda: self._close(form, output)))
        self._shown.append(form)
        if len(self._shown) > KEPT_FORMS:
            self._shown.popleft().close()

    def _chosen(self, found: list[str]) -> tuple[str, type[HyperParameters], dict[str, Any]]:
        """The variable, the model and the values that a line, or the latest cell, names."""
        if not found:
            found = next((hp for cell in self._cells.recent if (hp := parser(cell.magic).parse_line(cell.line).hp)), [])
        if not found:
            raise PlanError(f"no %%pai_* cell of this notebook has had hyperparameters yet\n\n{HP_HELP}")
        model, values, pairs = split(found, self._cells.shell.user_ns)
        values = merged(values, from_words(model, pairs))
        name = next((word for word in found if "=" not in word), "")
        if not fields_of(model):
            model, values = HyperParameters.of(values), {}
        return name, model, values

    def _run(self, form: HyperParameterForm, output: WidgetOutput, cell: Recent, pairs: list[str]) -> None:
        def ended(run: Run) -> None:
            form.state, form.note = "", _outcome(run)

        form.state, form.note = "running", ""
        try:
            run = self._cells.run_again(cell, pairs, ended)
        except (PaibookError, SyntaxError) as error:
            # Said in the form too: a page that was reloaded no longer shows what is printed here.
            form.state, form.note = "", f"{type(error).__name__}: {error}"
            print(form.note)
            return
        form.show_last(run.plan.hyperparameters, _label(run.id, run.record.started))
        output.update(form.static())

    def _close(self, form: HyperParameterForm, output: WidgetOutput) -> None:
        output.replace(form.static())
        # Seen only where the form still stands: a page that was reloaded has lost sight of the cell's output.
        form.note = "the page was reloaded since the form was made: run its cell again to keep a table"


class _Page:
    """The cell that a form stands in: what a click starts is shown there, whichever thread brings the click."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()

    def soon(self, action: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(action, context=self._context)


def last_used(history: RunHistory, paths: Collection[str]) -> tuple[dict[str, Any], str]:
    """The values of the latest run that had hyperparameters of these names, and what to call it; empty without one."""
    for record, _ in zip(history, range(LOOKED_AT), strict=False):
        try:
            values = flat(history.plan(record.id).hyperparameters)
        except (OSError, PlanError):
            continue  # a run that is being deleted, or whose plan another version wrote
        if set(values) & set(paths):
            return values, _label(record.id, record.started)
    return {}, ""


def _outcome(run: Run) -> str:
    seconds = (run.record.ended or time.time()) - run.record.started
    error = f": {run.record.error}" if run.record.error else ""
    metrics = "".join(f" · {name} {run.metrics.last(name):.4g}" for name in run.metrics.names[:4])
    return f"run {run.id.rpartition('-')[2]} {run.state}{error}, {seconds:.1f} s{metrics}"


def _label(run_id: str, started: float) -> str:
    return f"run {run_id.rpartition('-')[2]} of {time.strftime('%H:%M', time.localtime(started))}"
