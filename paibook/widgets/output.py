"""A widget in a cell, and beside it what stands for it where its kernel is gone."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from IPython.display import display, update_display

RENEW_SECONDS = 10.0
VIEW = "application/vnd.jupyter.widget-view+json"
_NOTHING = {"text/plain": "", "text/html": ""}
# JupyterLab says "model not found" in place of a widget without a kernel, as text; a widget that lives has elements.
_CHILD, _WIDGET = ".jp-OutputArea-child", ".jp-OutputArea-output.lm-Panel"
_STYLE = (
    f"<style>{_CHILD}:has(.pai-static):has(+ {_CHILD} {_WIDGET} > *),"
    f"{_CHILD}:has(.pai-static) + {_CHILD}:has({_WIDGET}):not(:has({_WIDGET} > *)) {{display: none}}</style>"
)


class WidgetOutput:
    """A widget shown in the current cell, as two outputs: a static form of its state, and the live view.

    One of them is in sight. JupyterLab shows a widget's error and nothing else that is in the widget's own output, so
    the static form has an output before it, with a style that hides whichever is not wanted. In a notebook that is not
    trusted JupyterLab applies no styles and shows no widgets either, but the empty HTML that comes with the view.

    Args:
        widget: An ipywidgets widget.
        static: A MIME bundle of ``text/plain`` and perhaps ``text/html``.
    """

    def __init__(self, widget: Any, static: Mapping[str, Any]) -> None:
        self._id = uuid.uuid4().hex
        self._next = time.monotonic() + RENEW_SECONDS
        view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
        display(_marked(static), display_id=self._id, raw=True)
        display({**_NOTHING, VIEW: view}, display_id=f"{self._id}-view", raw=True)

    def update(self, static: Mapping[str, Any]) -> None:
        """Change what a notebook that is saved now will show without its kernel."""
        update_display(_marked(static), display_id=self._id, raw=True)
        self._next = time.monotonic() + RENEW_SECONDS

    def renew(self, text: Callable[[], str]) -> None:
        """Do so now and then, with text; call it often."""
        if time.monotonic() >= self._next:
            self.update({"text/plain": text()})

    def replace(self, bundle: Mapping[str, Any]) -> None:
        """Show a MIME bundle in place of the widget, for good."""
        update_display(dict(bundle), display_id=self._id, raw=True)
        update_display(dict(_NOTHING), display_id=f"{self._id}-view", raw=True)


def _marked(static: Mapping[str, Any]) -> dict[str, Any]:
    html = static.get("text/html") or f"<pre>{escape(static['text/plain'])}</pre>"
    return {"text/plain": static["text/plain"], "text/html": f'{_STYLE}<div class="pai-static">{html}</div>'}
