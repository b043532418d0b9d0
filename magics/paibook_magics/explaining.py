"""The explainer in a notebook: ``%pai_explain``, ``run.explain()`` and cells with ``--explain``; text in a terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from paibook.attached import AttachedRun
from paibook.errors import PaibookError, PlanError
from paibook.pictures import PictureLog
from paibook.plan import Plan
from paibook.run import Run, RunRecord
from paibook.session import Session
from paibook_magics.panels import Panels, in_notebook
from paibook_magics.pictures import DRAWN, drawn

if TYPE_CHECKING:
    from paibook.widgets.explainer import Explainer

EXPLAIN_HELP = """Look at the pictures of a run beside its code: live, paused, step by step, or all of it again.

  %pai_explain                   the run that goes on, else the last one that has pictures
  %pai_explain ID                a run of %pai_runs (the end of an id is enough), also of an earlier notebook

A cell with --explain shows the player while it runs.
"""


class Explaining:
    """Shows the explainer of runs.

    Args:
        panels: Where its widgets are kept.
    """

    def __init__(self, panels: Panels) -> None:
        self._panels = panels

    def line(self, session: Session, line: str) -> None:
        """Run ``%pai_explain LINE``.

        Raises:
            PlanError: There is no such run, or it has no pictures.
        """
        match line.split():
            case []:
                self._latest(session)
            case [run_id]:
                self._of_id(session, run_id)
            case _:
                raise PlanError(f"%pai_explain {line}: not understood\n\n{EXPLAIN_HELP}")

    def show(self, run: Run | AttachedRun) -> None:
        """Show a run; what stands for the player without a kernel is its last picture.

        Raises:
            PlanError: It has ended and has no pictures.
        """
        if run.done():
            _check(run.record, run.pictures)
        explainer = self._open(run.pictures, run.plan, lambda: run.state, refresh=isinstance(run, AttachedRun))
        if explainer is not None and not run.done():
            run.add_done_callback(lambda _run: self._panels.renew(explainer))

    def _latest(self, session: Session) -> None:
        mine = next((run for run in reversed(session.runs) if not run.done() or len(run.pictures)), None)
        if mine is not None:
            self.show(mine)
            return
        for record in session.history:
            if len(pictures := session.history.pictures(record.id)):
                self._kept(session, record, pictures)
                return
        raise PlanError(f"no run has pictures yet: run a cell first, with {_magics()}")

    def _of_id(self, session: Session, run_id: str) -> None:
        try:
            record = session.history.find(run_id)
        except PaibookError as error:
            raise PlanError(str(error)) from None
        mine = next((run for run in session.runs if run.id == record.id), None)
        if mine is not None:
            self.show(mine)
        else:
            self._kept(session, record, session.history.pictures(record.id))

    def _kept(self, session: Session, record: RunRecord, pictures: PictureLog) -> None:
        """Show a run from its folder; another process may be driving it."""
        running = record.state == "running"
        if not running:
            _check(record, pictures)
        state = (lambda: _state(session, record)) if running else (lambda: record.state)
        self._open(pictures, session.history.plan(record.id), state, refresh=running)

    def _open(self, pictures: PictureLog, plan: Plan, state: Any, refresh: bool = False) -> Explainer | None:
        title = f"{plan.name or plan.program.filename.removeprefix('Cell ')} · %%pai_{plan.runtime}"
        if not in_notebook():
            last = pictures.last
            print(f"{title} · {state()}")
            print(drawn(last.picture)["text/plain"] if last is not None else "no picture yet")
            return None
        from paibook.widgets.explainer import Explainer  # anywidget takes a while to import

        explainer = Explainer(pictures, drawn, state, title, _source(plan), refresh)
        self._panels.show(explainer)
        return explainer


def _source(plan: Plan) -> str:
    """The cell as it is numbered: its first line is the magic's."""
    lines = plan.program.source.split("\n")
    return "\n".join([f"%%pai_{plan.runtime}", *lines[1:]]) if not lines[0].strip() else "\n".join(lines)


def _check(record: RunRecord, pictures: PictureLog) -> None:
    if not len(pictures):
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.started))
        raise PlanError(
            f"run {record.id} of {when} has no pictures: cells with {_magics()} make them, once they have begun to work"
        )


def _state(session: Session, record: RunRecord) -> str:
    try:
        return session.history.record(record.id).state
    except PaibookError:
        return "deleted"


def _magics() -> str:
    names = [f"%%pai_{model}" for model in DRAWN]
    return f"{', '.join(names[:-1])} or {names[-1]}"
