"""Panels under the line magics: live in a notebook, static where there is no kernel, text in a terminal."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from IPython.core.getipython import get_ipython

if TYPE_CHECKING:
    from paibook.widgets.output import WidgetOutput

KEPT = 3  # panels of one kind that stay live


class Panel(Protocol):
    """A widget with a static form; such as a ``LivePanel``."""

    @property
    def model_id(self) -> str: ...
    def static(self) -> dict[str, str]: ...
    def close(self) -> None: ...


class Panels:
    """The panels of one notebook. Of each kind the last few are live; those before them turn into static tables."""

    def __init__(self) -> None:
        self._live: dict[str, deque[tuple[Panel, WidgetOutput]]] = {}

    def show(self, panel: Panel, static: Mapping[str, str] | None = None) -> None:
        """Display a panel.

        Args:
            static: What stands for it where there is no kernel; its own table if None.
        """
        from paibook.widgets.output import WidgetOutput

        output = WidgetOutput(panel, static or panel.static())
        # By name: each widget has a class of its own, made for its traits.
        live = self._live.setdefault(type(panel).__name__, deque())
        live.append((panel, output))
        if len(live) > KEPT:
            self._freeze(*live.popleft())

    def renew(self, panel: Panel) -> None:
        """Replace what stands for a panel where there is no kernel by what it shows now; from any thread."""
        for live, output in self._live.get(type(panel).__name__, ()):
            if live is panel:
                output.update(panel.static())

    def close(self) -> None:
        """Close every panel; their outputs keep what they showed."""
        for panel, _output in [one for live in self._live.values() for one in live]:
            panel.close()
        self._live.clear()

    @staticmethod
    def _freeze(panel: Panel, output: WidgetOutput) -> None:
        output.replace(panel.static())
        panel.close()


def in_notebook() -> bool:
    """Whether a front end may show widgets: this is a kernel, not a terminal or a script."""
    return getattr(get_ipython(), "kernel", None) is not None
