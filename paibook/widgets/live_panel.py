"""What the panels of GPUs, cluster and runs have in common: a state that the page asks for, and a static form."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from paibook.errors import PaibookError
from paibook.widgets.output import WidgetOutput
from paibook.widgets.subshells import take_where_sent

STATIC = Path(__file__).parent / "static"
REFRESH_SECONDS = 0.5
# What may go wrong with an action, or with reading the state: a full disk and a locked database too.
EXPECTED = (PaibookError, OSError, sqlite3.Error)


class LivePanel(anywidget.AnyWidget):
    """A panel whose state is read anew when the page asks for it, and only then.

    Nothing polls in the kernel: the page asks ``every`` so often while the panel is in sight, and is answered at most
    once in ``REFRESH_SECONDS``. Each answer is worked out in a thread that ends with it, since a cluster may take its
    time. ``state`` is JSON-able, ``problem`` says why it could not be read or an action not be done.
    """

    _css = STATIC / "panels.css"

    state: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True)
    problem = traitlets.Unicode("").tag(sync=True)
    version = traitlets.Int(0).tag(sync=True)
    every = traitlets.Int(1000, help="Milliseconds after which the page asks again.").tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self._looking = threading.Lock()
        self._looked = 0.0
        self.refresh()
        self.on_msg(self._receive)
        take_where_sent(self.comm)

    def look(self) -> dict[str, Any]:
        """The state as it is now."""
        raise NotImplementedError

    def act(self, kind: str, content: dict[str, Any]) -> None:
        """Do what a button asks for."""

    def static(self) -> dict[str, str]:
        """The last state as text and HTML, for where there is no kernel."""
        raise NotImplementedError

    def _ipython_display_(self, **_options: Any) -> None:
        WidgetOutput(self, self.static())

    def refresh(self) -> None:
        """Read the state and send it."""
        self._answer("", {})

    def _receive(self, _widget: Any, content: Any, _buffers: Any) -> None:
        kind = content.get("kind") if isinstance(content, dict) else None
        if not isinstance(kind, str):
            return
        if kind == "refresh" and (self._looking.locked() or time.monotonic() < self._looked + REFRESH_SECONDS):
            return
        threading.Thread(target=self._answer, args=(kind, content), name="paibook-panel", daemon=True).start()

    def _answer(self, kind: str, content: dict[str, Any]) -> None:
        with self._looking:
            problem, state = "", self.state
            try:
                if kind not in ("", "refresh"):
                    self.act(kind, content)
            except EXPECTED as error:
                problem = str(error)
            try:
                state = self.look()
            except EXPECTED as error:
                problem = problem or str(error)
            if kind != "refresh" or problem:
                self.problem = problem  # of an action, until the next one
            self.state = state
            self.version += 1
            self._looked = time.monotonic()


def table_bundle(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, str]:
    """A title and a table, as aligned text and as HTML that needs no style sheet."""
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [columns, *rows]]
    text = "\n".join([title, *(line.rstrip() for line in lines if rows)])
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if rows else ""
    return {"text/plain": text, "text/html": f"<p>{escape(title)}</p>{table}"}


def gib(count: int | None) -> str:
    """Bytes for people, in GiB or MiB; empty for None.

    >>> gib(150323855360), gib(3 * 2**20), gib(None)
    ('140.0 GiB', '3 MiB', '')
    """
    if count is None:
        return ""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
