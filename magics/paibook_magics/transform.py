"""Turns ``%%pai_*`` cells into awaited calls, so that the event loop, and with it every widget, stays alive."""

from __future__ import annotations

import re

from paibook_magics.cells import MAGICS

_FIRST_LINE = re.compile(rf"^%%({'|'.join(MAGICS)})\b(?!\s*\?)(.*)$")


def await_pai_cells(lines: list[str]) -> list[str]:
    """An IPython input transformer: ``%%pai_ps -n 2`` and its body become ``await get_ipython().paibook.run_cell(...)``.

    Cells that start with anything else, and requests for help (``%%pai_ps?``), pass unchanged.
    """
    match = _FIRST_LINE.match(lines[0].rstrip("\n")) if lines else None
    if match is None or match[2].rstrip().endswith("?"):
        return lines
    magic, line = match[1], match[2].strip()
    return [f"await get_ipython().paibook.run_cell({magic!r}, {line!r}, {''.join(lines[1:])!r})\n"]
