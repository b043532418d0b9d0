"""The magics: the cells ``%%pai_mapreduce``, ``%%pai_allreduce``, ``%%pai_ps``, and lines such as ``%pai_cluster``."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from paibook.attached import AttachedRun
from paibook.run import Run
from paibook.session import Session
from paibook.widgets.live import LiveCurves, has_rich_front_end
from paibook.widgets.plot import Plot
from paibook_magics.cells import MAGICS, Cells, help_text
from paibook_magics.console import title_of
from paibook_magics.explaining import EXPLAIN_HELP, Explaining
from paibook_magics.following import TICK_SECONDS
from paibook_magics.hyperparameter_form import HP_HELP, HyperParameterForms
from paibook_magics.lines import CLUSTER_HELP, GPUS_HELP, RUNS_HELP, Lines
from paibook_magics.rank_completion import rank_matcher
from paibook_magics.rank_inspection import RankInspection
from paibook_magics.rank_lines import DEBUG_HELP, RANKS_HELP, RankLines
from paibook_magics.schedule_help import JOBS_HELP, SCHEDULE_HELP
from paibook_magics.search_cells import SearchCells
from paibook_magics.search_cells import help_text as search_help
from paibook_magics.transform import AwaitPaiCells

_drawing: set[asyncio.Task[None]] = set()


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register the magics; starts nothing."""
    if hasattr(shell, "paibook"):
        return
    session = Session()
    cells = Cells(shell, session)
    shell.paibook = cells  # type: ignore[attr-defined]
    for magic in MAGICS:
        _register(shell, partial(_sync_cell, cells, magic), "cell", magic, help_text(magic))
    lines = Lines(session, shell.user_ns)
    _register(shell, lines.cluster, "line", "pai_cluster", CLUSTER_HELP)
    _register(shell, lines.runs, "line", "pai_runs", RUNS_HELP)
    _register(shell, lines.gpus, "line", "pai_gpus", GPUS_HELP)
    cells.lines = lines
    explaining = Explaining(lines.panels)
    _register(shell, partial(explaining.line, session), "line", "pai_explain", EXPLAIN_HELP)
    _register(shell, _schedule, "line", "pai_schedule", SCHEDULE_HELP)
    _register(shell, partial(_jobs, lines), "line", "pai_jobs", JOBS_HELP)
    ranks = RankLines(session)
    _register(shell, ranks.ranks, "line", "pai_ranks", RANKS_HELP)
    _register(shell, ranks.debug, "line", "pai_debug", DEBUG_HELP)
    cells.search = SearchCells(cells)
    _register(shell, cells.search.run_blocking, "line_cell", "pai_search", search_help())
    _register(shell, HyperParameterForms(cells).show, "line", "pai_hp", HP_HELP)
    if shell.Completer is not None:
        cells.matcher = rank_matcher(session)
        shell.Completer.custom_matchers.append(cells.matcher)
    kernel = getattr(shell, "kernel", None)
    if kernel is not None:
        cells.inspection = RankInspection(kernel, session)
    # Before IPython's own transformers, which would turn the cell into a synchronous call.
    transformer = AwaitPaiCells(shell)
    shell.events.register("pre_execute", transformer.begin)
    shell.events.register("post_execute", transformer.end)
    shell.input_transformers_cleanup.append(transformer)
    Run.plotter = staticmethod(_plot)
    Run.explainer = staticmethod(explaining.show)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Close the session and take the magics away."""
    cells = getattr(shell, "paibook", None)
    if cells is None:
        return
    if cells.lines is not None:
        cells.lines.panels.close()
    cells.session.close()
    for transformer in [t for t in shell.input_transformers_cleanup if isinstance(t, AwaitPaiCells)]:
        shell.events.unregister("pre_execute", transformer.begin)
        shell.events.unregister("post_execute", transformer.end)
        shell.input_transformers_cleanup.remove(transformer)
    if cells.matcher is not None:
        shell.Completer.custom_matchers.remove(cells.matcher)
    if cells.inspection is not None:
        cells.inspection.remove()
    del shell.paibook  # type: ignore[attr-defined]


def _register(shell: InteractiveShell, function: Any, kind: str, name: str, doc: str) -> None:
    def magic(*arguments: str) -> Any:
        return function(*arguments)

    magic.__doc__ = doc
    magic.__name__ = name
    register: Any = shell.register_magic_function  # IPython types it as its undecorated self
    register(magic, magic_kind=kind, magic_name=name)


def _sync_cell(cells: Cells, magic: str, line: str, body: str) -> Any:
    return cells.run_cell_blocking(magic, line, body)


def _plot(run: Run | AttachedRun, **view: Any) -> Plot | None:
    if run.done() or not has_rich_front_end():
        return Plot({run.plan.name or run.id: run.metrics}, title_of(run.plan))
    curves = LiveCurves(run.metrics, title_of(run.plan), run.cancel, **view)
    task = asyncio.get_running_loop().create_task(_draw_until_done(run, curves))
    _drawing.add(task)  # the loop itself holds tasks weakly
    task.add_done_callback(_drawing.discard)
    return None


async def _draw_until_done(run: Run | AttachedRun, curves: LiveCurves) -> None:
    try:
        while not run.done():
            curves.tick()
            await asyncio.sleep(TICK_SECONDS)
    finally:
        curves.finish()


def _schedule(line: str) -> Any:
    from paibook_magics.schedule_line import pai_schedule  # few notebooks need what it takes

    return pai_schedule(line)


def _jobs(lines: Lines, line: str) -> None:
    from paibook_magics.jobs_line import pai_jobs  # as above

    pai_jobs(lines, line)
