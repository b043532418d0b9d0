"""Panels under the line magics: live in a notebook, static where there is no kernel, text in a terminal."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from IPython.core.getipython import get_ipython
from IPython.display import display, update_display

if TYPE_CHECKING:
    from paibook.widgets.live_panel import LivePanel

VIEW = "application/vnd.jupyter.widget-view+json"
KEPT = 3  # panels of one kind that stay live


class Panels:
    """The panels of one notebook. Of each kind the last few are live; those before them turn into static tables."""

    def __init__(self) -> None:
        self._live: dict[type, deque[tuple[LivePanel, str]]] = {}

    def show(self, panel: LivePanel, static: Mapping[str, Any] | None = None) -> None:
        """Display a panel.

        Args:
            static: What stands for it where there is no kernel; its own table if None.
        """
        display_id = uuid.uuid4().hex
        view = {"version_major": 2, "version_minor": 0, "model_id": panel.model_id}
        display({**(static or panel.static()), VIEW: view}, display_id=display_id, raw=True)
        live = self._live.setdefault(type(panel), deque())
        live.append((panel, display_id))
        if len(live) > KEPT:
            self._freeze(*live.popleft())

    def close(self) -> None:
        """Close every panel; their outputs keep what they showed."""
        for panel, _display_id in [one for live in self._live.values() for one in live]:
            panel.close()
        self._live.clear()

    @staticmethod
    def _freeze(panel: LivePanel, display_id: str) -> None:
        update_display(panel.static(), display_id=display_id, raw=True)
        panel.close()


def in_notebook() -> bool:
    """Whether a front end may show widgets: this is a kernel, not a terminal or a script."""
    return getattr(get_ipython(), "kernel", None) is not None
