"""Turns ``%%pai_*`` cells into awaited calls, so that the event loop, and with it every widget, stays alive."""

from __future__ import annotations

import ast
import re
import shlex

from IPython.core.inputtransformer2 import TransformerManager
from IPython.core.interactiveshell import InteractiveShell

from paibook_magics.cells import MAGICS
from paibook_magics.search_cells import without_inner_line

_FIRST_LINE = re.compile(rf"^%%({'|'.join(MAGICS)})\b(.*)$")
_ATTACH = re.compile(r"^%pai_runs\s+attach\s+(\S+)\s*$")
_SEARCH = re.compile(r"^(%%?)pai_search\b(.*)$")


class AwaitPaiCells:
    """An IPython input transformer: a ``%%pai_*`` cell becomes ``await get_ipython().paibook.run_cell(...)``.

    So do a search, ``%%pai_search`` or ``%pai_search`` alone in its cell, and ``%pai_runs attach`` alone in its cell.

    Cells that start with anything else, and requests for help (``%%pai_ps?``), pass unchanged. A body that is not
    Python takes the call's place, so that IPython itself shows the syntax error, at the cell's own line; under
    ``--sql`` it is not meant to be.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        # Source transformed while a cell executes belongs to another magic, such as %%time, which cannot await.
        self.executing = False

    def begin(self) -> None:
        """For IPython's event ``pre_execute``."""
        self.executing = True

    def end(self) -> None:
        """For IPython's event ``post_execute``."""
        self.executing = False

    def __call__(self, lines: list[str]) -> list[str]:
        if lines and not self.executing and (match := _SEARCH.match(lines[0].rstrip("\n"))):
            return self._search(match, lines)
        if not self.executing and (match := _ATTACH.match("".join(lines).strip())) and self._can_await():
            return [f"await get_ipython().paibook.attach({match[1]!r})\n"]
        match = _FIRST_LINE.match(lines[0].rstrip("\n")) if lines and not self.executing else None
        if match is None or match[2].rstrip().endswith("?"):
            return lines
        magic, line, body = match[1], match[2].strip(), "".join(lines[1:])
        if not _is_sql(magic, line) and not _is_python(body):
            return ["\n", *lines[1:]]
        if not self._can_await():
            return lines  # IPython makes it a synchronous call
        return [f"await get_ipython().paibook.run_cell({magic!r}, {line!r}, {body!r})\n"]

    def _search(self, match: re.Match[str], lines: list[str]) -> list[str]:
        line, body = match[2].strip(), "".join(lines[1:])
        alone = match[1] == "%"
        if line.endswith("?") or (alone and body.strip()):
            return lines  # a line among others; IPython makes it a synchronous call
        if not alone and not _is_python(without_inner_line(body)) and "--sql" not in body:
            return ["\n", *without_inner_line(body).splitlines(keepends=True)]
        if not self._can_await():
            return lines
        return [f"await get_ipython().paibook.search.run({line!r}, {body!r})\n"]

    def _can_await(self) -> bool:
        # In a terminal, Ctrl-C would leave an awaited run going unseen.
        return self._shell.autoawait and getattr(self._shell, "kernel", None) is not None


def _is_python(body: str) -> bool:
    try:
        ast.parse(TransformerManager().transform_cell(body))
    except SyntaxError:
        return False
    return True


def _is_sql(magic: str, line: str) -> bool:
    try:
        return magic == "pai_mapreduce" and "--sql" in shlex.split(line)
    except ValueError:  # quotes that do not close; parsing the line will say so
        return False
