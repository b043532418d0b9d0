"""Lines that ranks have begun and not ended, such as tqdm's bars and rows of dots, shown as they grow."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

from IPython.core.getipython import get_ipython
from IPython.display import display

from paibook_magics.labels import label_order
from paibook_magics.progress_bars import merged_bars

WAIT_SECONDS = 0.3
DRAW_SECONDS = 0.2
LONGEST_ROW = 300
MOST_ROWS = 50
MOST_BLOCKS = 200


@dataclass
class Row:
    """A line in the block; ``turn`` counts the lines its rank had there before."""

    turn: int
    label: str
    text: str
    whole: bool = False


class UnfinishedLines:
    """A block of text, replaced in place while any line in it grows.

    A line shown here is at home here: when it is whole it stays in the block, and is not printed again. So the saved
    notebook has each line once, and no empty output where the bars were.
    """

    def __init__(self) -> None:
        # A terminal cannot replace what it has printed.
        self._live = hasattr(get_ipython(), "kernel")
        self._blocks = 0
        self._drawn = 0.0
        self._text = ""
        self._handle: Any = None
        self._rows: list[Row] = []
        self._open: dict[tuple[str, str], Row] = {}

    def update(self, lines: dict[tuple[str, str], str]) -> None:
        """Show unfinished lines, given by stream and label, as they stand; at most five times a second."""
        now = time.monotonic()
        if not self._live or now - self._drawn < DRAW_SECONDS:
            return
        for key, text in lines.items():
            if key in self._open:
                self._open[key].text = text
            elif text.strip():
                self._add(key, text)
        self._draw(now)

    def end(self, stream: str, label: str, line: str) -> bool:
        """Leave a line that has become whole in its block; False when it is not shown here."""
        row = self._open.pop((stream, label), None)
        if row is None:
            return False
        row.text, row.whole = line, True
        if not self._open or len(self._rows) >= MOST_ROWS:
            self.close()
        return True

    def close(self) -> None:
        """Leave the whole lines as they are; what comes next starts a new block."""
        self._rows = [row for row in self._rows if row.whole]
        self._draw(time.monotonic())
        if self._text:  # else the block is used again: bars that remove themselves leave no gaps
            self._handle, self._text = None, ""
        self._rows, self._open = [], {}

    def _add(self, key: tuple[str, str], text: str) -> None:
        label = key[1]
        row = Row(sum(row.label == label for row in self._rows), label, text)
        self._rows.append(row)
        self._open[key] = row
        self._rows.sort(key=lambda row: (row.turn, *label_order(row.label)))

    def _draw(self, now: float) -> None:
        text = "\n".join(f"{label}{line}" for label, line in self._lines())
        if text == self._text:
            return
        self._text, self._drawn = text, now
        if self._handle is not None:
            self._handle.update({"text/plain": text}, raw=True)
            return
        self._handle = display({"text/plain": text}, raw=True, display_id=True)
        self._blocks += 1
        self._live = self._blocks < MOST_BLOCKS

    def _lines(self) -> list[tuple[str, str]]:
        """What is shown: bars that all ranks draw at their own pace as one."""
        made: list[tuple[str, str]] = []
        shown = [row for row in self._rows if row.text.strip()]
        for _, rows in groupby(shown, key=attrgetter("turn")):
            made += merged_bars([(row.label, _shown(row)) for row in rows])
        return made


def _shown(row: Row) -> str:
    return row.text if row.whole or len(row.text) <= LONGEST_ROW else "…" + row.text[-LONGEST_ROW:]
