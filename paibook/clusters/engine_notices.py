"""Words left for a call that runs on an engine: the control thread takes them in beside the running call."""

from __future__ import annotations

from typing import Any

from paibook.clusters.engine_interrupt import CALL

REQUEST = "paibook_notice"  # the control message's type; in its content: the call's message id, and the word
WORD = "word"


class Notices:
    """One engine's: what was left for the latest call that anything was left for."""

    def __init__(self) -> None:
        self._left: tuple[str, frozenset[str]] = ("", frozenset())

    def heed(self, kernel: Any) -> None:
        """Take words in from now on."""

        async def take(stream: Any, ident: Any, parent: dict[str, Any]) -> None:
            call, word = parent["content"][CALL], parent["content"][WORD]
            self._left = (call, self.left_for(call) | {word})

        kernel.control_handlers[REQUEST] = take

    def left_for(self, call: str) -> frozenset[str]:
        """What was left for a call."""
        latest, words = self._left
        return words if latest == call else frozenset()
