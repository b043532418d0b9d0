"""What processes print, cut into lines, each known by who wrote it."""

from __future__ import annotations

import time

LONGEST_LINE = 20_000


class LabelledLines:
    """Cuts streams into lines; a line stays back until it is whole."""

    def __init__(self) -> None:
        self._partial: dict[tuple[str, str], str] = {}
        self._began: dict[tuple[str, str], float] = {}

    def feed(self, stream: str, label: str, text: str) -> list[str]:
        """Add text; returns the lines it completes. Of a line redrawn with carriage returns, the last state counts."""
        key = stream, label
        before = self._partial.get(key, "")
        *whole, rest = (before + text).split("\n")
        if len(rest) > LONGEST_LINE:  # an endless line is shown in pieces
            whole, rest = [*whole, rest], ""
        # A carriage return at the end stays: what follows it may redraw the line, or be the end of the line.
        self._partial[key] = _last_state(rest) + "\r" * rest.endswith("\r")
        if whole or not before:
            self._began[key] = time.monotonic()
        return [_last_state(line) for line in whole]

    def unfinished(self, seconds: float) -> dict[tuple[str, str], str]:
        """Lines begun at least so long ago and still not whole, as they stand, by stream and label."""
        now = time.monotonic()
        return {key: _last_state(text) for key, text in self._partial.items() if now - self._began[key] >= seconds}

    def rest(self) -> list[tuple[str, str, str]]:
        """Stream, label and text of every unfinished line, which is thereby finished."""
        states = [(stream, label, _last_state(text)) for (stream, label), text in self._partial.items()]
        left = [state for state in states if state[2]]
        self._partial.clear()
        return left


def _last_state(line: str) -> str:
    return line.rstrip("\r").rpartition("\r")[2]
