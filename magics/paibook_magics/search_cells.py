"""``%%pai_search``: a study over a ``%%pai_*`` cell."""

from __future__ import annotations

import argparse
import re
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from paibook.errors import PlanError, ProgramError
from paibook.hyperparameters.model import from_words
from paibook.hyperparameters.values import flat, words
from paibook.studies import Space, StudyOptions, start
from paibook.studies.space import parse_ranges
from paibook_magics.cells import MAGICS, Cells, Recent
from paibook_magics.following import Stopped, follow, follow_blocking
from paibook_magics.hyperparameter_words import split
from paibook_magics.option_values import at_least, seconds
from paibook_magics.options import Parser

if TYPE_CHECKING:
    from paibook.studies.running import Search
    from paibook.widgets.study import LiveStudy

_INNER = re.compile(rf"%%({'|'.join(MAGICS)})\b(.*)")
_EXAMPLES = """
Each trial is a run of the cell with other values of `hp`; what it logs by pai.log under the metric's name is its
value, and the mean over ranks counts. Searched is what has a range or choices in the model of the cell's --hp; values
on the cell's own line stay as they are.

  %%pai_search --metric loss --trials 30 --study first
  %%pai_allreduce -n 2 --push X,y --hp Adam batch_size=64
  ...

  %pai_search --metric accuracy --direction maximize --space lr=1e-4..1:log     the latest %%pai_* cell
"""


class SearchCells:
    """The searches of one notebook."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells

    async def run(self, line: str, body: str) -> None:
        """Run ``%%pai_search LINE`` over a body, or ``%pai_search LINE``, and wait for it on the event loop."""
        options, search, view = self._start(line, body)
        try:
            await follow(search, view)
        except Stopped:
            raise _stopped(search) from None
        self._keep(options, search)

    def run_blocking(self, line: str, body: str = "") -> None:
        """The same without an event loop."""
        options, search, view = self._start(line, body)
        try:
            follow_blocking(search, view)
        except Stopped:
            raise _stopped(search) from None
        self._keep(options, search)

    def _start(self, line: str, body: str) -> tuple[argparse.Namespace, Search, LiveStudy]:
        from paibook.widgets.study import LiveStudy  # anywidget takes a while to import

        options = parser().parse_line(line)
        try:
            search = self._search(options, self._cell(options, body))
        except SyntaxError as error:
            raise ProgramError(f"{error.filename}, line {error.lineno}: {error.msg}") from None
        return options, search, LiveStudy(search.snapshot, search.cancel, search.stop_trial)

    def _search(self, options: argparse.Namespace, cell: Recent) -> Search:
        plan, its_own = self._cells.plan(cell, [])
        refused = {
            "-a": its_own.noblock,
            "--detach": its_own.detach,
            "--dry-run": its_own.dry_run,
            "--local": its_own.local,
        }
        for option, given in refused.items():
            if given:
                raise PlanError(f"{option} does not go with a search; leave it out of the cell's line")
        model, values, pairs = split(its_own.hp, self._cells.shell.user_ns)
        fixed = from_words(model, pairs)
        space = Space.of(model, values, fixed, parse_ranges(options.space))
        plan = replace(plan, hyperparameters={**values, **fixed})
        search = start(plan, space, _options(options), self._cells.variables(plan), self._cells.session)
        print(f"study {search.name}: {', '.join(view.path for view in space.searched)}, kept in {search.path}")
        return search

    def _cell(self, options: argparse.Namespace, body: str) -> Recent:
        """The cell below the line, or one that has run before."""
        if body.strip():
            return inner_cell(body, self._cells.cell_name())
        recent = self._cells.recent
        if not recent:
            raise PlanError("%pai_search runs a %%pai_* cell that has run in this notebook before; there is none yet")
        if options.cell is None:
            return recent[0]
        found = [cell for cell in recent if cell.name == f"Cell In[{options.cell}]"]
        if not found:
            known = ", ".join(cell.name.removeprefix("Cell ") for cell in recent)
            raise PlanError(f"--cell {options.cell}: no %%pai_* cell has run there; there are {known}")
        return found[0]

    def _keep(self, options: argparse.Namespace, search: Search) -> None:
        best = search.result()
        values = search.best_hyperparameters
        print(f"best {search.options.metric} {best.value:.6g} in trial {best.number}: --hp {shlex.join(words(values))}")
        if options.out is not None:
            self._cells.shell.user_ns[options.out] = values
            print(f"{options.out}: {len(flat(values))} hyperparameters")


def inner_cell(body: str, name: str) -> Recent:
    """The ``%%pai_*`` cell in a search's body, its lines numbered as in the notebook.

    Raises:
        PlanError: The body begins with something else.
    """
    lines = body.splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if line.strip())
    match = _INNER.fullmatch(lines[first].rstrip())
    if match is None:
        magics = ", ".join(f"%%{magic}" for magic in MAGICS)
        raise PlanError(f"the line below %%pai_search begins a cell: one of {magics}; got {lines[first].strip()!r}")
    # One line more than the cell alone has above its body.
    return Recent(match[1], match[2].strip(), "\n" * (first + 1) + "".join(lines[first + 1 :]), name)


def parser() -> Parser:
    """The grammar of ``%%pai_search``."""
    made = Parser(
        prog="pai_search",
        description="Search for the hyperparameters with which a cell's metric is best, by Optuna.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    add = made.add_argument_group("options").add_argument
    add("--metric", default="loss", metavar="NAME", help="what pai.log calls it in the cell; loss")
    add("--direction", choices=["minimize", "maximize"], default="minimize", help="minimize")
    add("--which", choices=["last", "best"], default="last", help="value of the metric that counts in a trial; last")
    add("--trials", type=at_least(1), default=20, metavar="N", help="trials of the study, earlier ones included; 20")
    add(
        "--jobs",
        type=at_least(1),
        default=None,
        metavar="N",
        help="trials at once; as many as the workers have room for",
    )
    add("--timeout", type=seconds, default=None, metavar="S", help="begin no trial after S seconds")
    add(
        "--space",
        nargs="+",
        action="extend",
        default=[],
        metavar="lr=1e-4..1:log",
        help="ranges beside the model's or in their place: lr=1e-4..1:log  units=16..256:16 (steps)  opt=sgd,adam",
    )
    add("--sampler", choices=["tpe", "random"], default="tpe", help="how values are chosen; tpe")
    add("--pruner", choices=["median", "hyperband", "none"], default="median", help="how bad trials are ended; median")
    add("--warmup", type=at_least(0), default=0, metavar="N", help="steps of a trial that are not judged; 0")
    add("--seed", type=at_least(0), default=None, metavar="N", help="the same choices again, with --jobs 1")
    add("--study", default="", metavar="NAME", help="name of the study; made up")
    add("--resume", action="store_true", help="go on with the study of that name")
    add(
        "--cell", type=at_least(1), default=None, metavar="N", help="for %%pai_search alone: the cell In[N]; the latest"
    )
    add("-o", "--out", default=None, metavar="NAME", help="keep the best hyperparameters in this variable, as a dict")
    return made


def _options(options: argparse.Namespace) -> StudyOptions:
    names = (
        "metric",
        "direction",
        "which",
        "trials",
        "jobs",
        "timeout",
        "sampler",
        "pruner",
        "warmup",
        "seed",
        "study",
    )
    return StudyOptions(**{name: getattr(options, name) for name in names}, resume=options.resume)


def _stopped(search: Search) -> Stopped:
    best = search.best
    found = "no trial was done" if best is None else f"best {search.options.metric} so far {best.value:.6g}"
    return Stopped(f"the search was stopped, {found}; go on with --study {search.name} --resume")


def help_text() -> str:
    """What ``%%pai_search?`` shows."""
    return parser().format_help()


def without_inner_line(body: str) -> str:
    """A search's body with a blank line in the place of the inner cell's magic, to see whether it is Python."""
    lines: list[Any] = body.splitlines(keepends=True)
    first = next((i for i, line in enumerate(lines) if line.strip()), None)
    if first is not None and _INNER.fullmatch(lines[first].rstrip()):
        lines[first] = "\n"
    return "".join(lines)
