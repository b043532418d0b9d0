"""Tooltips (Shift-Tab) in cells that run on ranks: names that live there are described, not only the notebook's."""

from __future__ import annotations

from typing import Any

from IPython.utils.tokenutil import token_at_cursor

from paibook.runtimes.inspection import describe
from paibook.session import Session
from paibook_magics.rank_completion import RANK_CELL, ask_a_rank


class RankInspection:
    """Answers a kernel's requests to inspect a name where the first idle rank knows it, and leaves the others to it.

    IPython has no hook for this that sees the cell, so the kernel's own method is wrapped.

    Args:
        kernel: The ipykernel of the notebook.
        session: Whose ranks are asked.
    """

    def __init__(self, kernel: Any, session: Session) -> None:
        self._kernel, self._session = kernel, session
        self._inspect = kernel.do_inspect
        kernel.do_inspect = self._answer

    def remove(self) -> None:
        """Leave the kernel as it was."""
        del self._kernel.do_inspect

    def _answer(self, code: str, cursor_pos: int, *args: Any, **options: Any) -> Any:
        detail = args[0] if args else options.get("detail_level", 0)
        found = self._found(code, cursor_pos, detail > 0) if RANK_CELL.match(code) else None
        if found is None:
            return self._inspect(code, cursor_pos, *args, **options)
        return {"status": "ok", "found": True, "data": {"text/plain": found}, "metadata": {}}

    def _found(self, code: str, cursor_pos: int, detailed: bool) -> str | None:
        line, newline, body = code.partition("\n")
        if cursor_pos <= len(line):
            return None
        name = token_at_cursor(" " * len(line) + newline + body, cursor_pos)
        return ask_a_rank(self._session, describe, name, detailed) if name else None
