"""Completion in cells that run on ranks: Tab knows the names that live there, not only the notebook's."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from IPython.core.completer import CompletionContext, SimpleCompletion, context_matcher

from paibook.runtimes.inspection import complete, on_ranks, workers
from paibook.session import Session

T = TypeVar("T")
SECONDS = 0.5  # somebody waits with a finger on Tab
MOST = 500
RANK_CELL = re.compile(r"\s*%%pai_(allreduce|ps)\b")
_NAME = re.compile(r"(?<![\w.\])'\"])[^\W\d]\w*(\.[^\W\d]\w*)*\.?$")


def rank_matcher(session: Session) -> Callable[[CompletionContext], Any]:
    """A matcher for IPython's completer that asks the first idle rank; without ranks, it has nothing to say."""

    @context_matcher(identifier="paibook.ranks")
    def matcher(context: CompletionContext) -> Any:
        name = _NAME.search(context.token)
        if name is None or not RANK_CELL.match(context.full_text) or context.cursor_line == 0:
            return {"completions": []}
        found = _found(session, name[0])
        before = context.token[: name.start()]
        return {"completions": [SimpleCompletion(before + text, type="rank") for text in found]}

    return matcher


def _found(session: Session, name: str) -> list[str]:
    return ask_a_rank(session, complete, name, MOST) or []


def ask_a_rank(session: Session, function: Callable[..., T], *args: Any) -> T | None:
    """What the first idle rank answers; None where there is none, it does not answer soon, or fails."""
    idle = [status.rank for status in workers(session.cluster) if status.state == "idle"]
    if not idle:
        return None
    try:
        answers = on_ranks(session.cluster, function, *args, ranks=idle[:1], timeout=SECONDS)
    except Exception:  # the user types: whatever went wrong on a rank is not what they asked about
        return None
    return next(iter(answers.values()), None)
