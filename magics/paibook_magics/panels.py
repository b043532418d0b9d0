"""Panels under the line magics: live in a notebook, static where there is no kernel, text in a terminal."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

from IPython.core.getipython import get_ipython
from IPython.display import display, update_display

VIEW = "application/vnd.jupyter.widget-view+json"
KEPT = 3  # panels of one kind that stay live


class Panel(Protocol):
    """A widget with a static form; such as a ``LivePanel``."""

    @property
    def model_id(self) -> str: ...
    def static(self) -> dict[str, str]: ...
    def close(self) -> None: ...


class Panels:
    """The panels of one notebook. Of each kind the last few are live; those before them turn into static tables.

    A panel is two outputs, a static table and the live view, which hides the table while it is there. So the saved
    notebook has the table, where a view alone would be an error once its kernel is gone.
    """

    def __init__(self) -> None:
        self._live: dict[str, deque[tuple[Panel, str]]] = {}

    def show(self, panel: Panel, static: Mapping[str, str] | None = None) -> None:
        """Display a panel.

        Args:
            static: What stands for it where there is no kernel; its own table if None.
        """
        display_id = uuid.uuid4().hex
        display(_marked(static or panel.static()), display_id=display_id, raw=True)
        display(_view(panel.model_id), display_id=f"{display_id}-view", raw=True)
        # By name: each widget has a class of its own, made for its traits.
        live = self._live.setdefault(type(panel).__name__, deque())
        live.append((panel, display_id))
        if len(live) > KEPT:
            self._freeze(*live.popleft())

    def renew(self, panel: Panel) -> None:
        """Replace what stands for a panel where there is no kernel by what it shows now; from any thread."""
        for live, display_id in self._live.get(type(panel).__name__, ()):
            if live is panel:
                update_display(_marked(panel.static()), display_id=display_id, raw=True)

    def close(self) -> None:
        """Close every panel; their outputs keep what they showed."""
        for panel, _display_id in [one for live in self._live.values() for one in live]:
            panel.close()
        self._live.clear()

    @staticmethod
    def _freeze(panel: Panel, display_id: str) -> None:
        update_display(panel.static(), display_id=display_id, raw=True)
        update_display(_view(""), display_id=f"{display_id}-view", raw=True)  # no model: nothing is shown
        panel.close()


def _view(model_id: str) -> dict[str, Any]:
    return {"text/plain": "", VIEW: {"version_major": 2, "version_minor": 0, "model_id": model_id}}


def _marked(static: Mapping[str, str]) -> dict[str, str]:
    """The table in an element by which the live view knows it."""
    return {**static, "text/html": f'<div class="pai-static">{static["text/html"]}</div>'}


def in_notebook() -> bool:
    """Whether a front end may show widgets: this is a kernel, not a terminal or a script."""
    return getattr(get_ipython(), "kernel", None) is not None
