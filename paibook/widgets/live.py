"""The curve under a running cell: live in a notebook, static when the run ends, text in a terminal."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from paibook.metrics import MetricStream
from paibook.widgets.figure import bundle

if TYPE_CHECKING:
    from paibook.widgets.curves import Curves
    from paibook.widgets.output import WidgetOutput

# A page reloaded during a run keeps the live widget in place of the static figure, so the last few stay answerable.
KEPT_WIDGETS = 8
_finished: deque[Curves] = deque()


class LiveCurves:
    """Show a run's metrics in the current cell, from the first one reported to the end.

    Call ``tick`` about ten times a second and ``finish`` once, both in the cell's own task or thread: ipykernel
    puts the output into the cell whose context the call is made in.

    Args:
        stream: The run's metrics.
        title: Shown above the curves.
        on_stop: Called, from any thread, when Stop is clicked.
        **view: How the curves are to be looked at first, traits of ``Curves``.
    """

    def __init__(
        self, stream: MetricStream, title: str = "", on_stop: Callable[[], Any] | None = None, **view: Any
    ) -> None:
        self._stream = stream
        self._view = view
        self._title = title
        self._on_stop = on_stop
        self._widget: Curves | None = None
        self._output: WidgetOutput | None = None
        self._rich = has_rich_front_end()
        self._done = False

    def tick(self) -> None:
        """Show what is new; nothing at all before the first metric."""
        if self._done or not self._rich:
            return
        if self._widget is not None:
            self._widget.update()
            if self._output is not None:
                self._output.renew(self._widget.text)
        elif len(self._stream):
            self._open()

    def finish(self) -> None:
        """Replace the live curves by the static figure; a second call does nothing."""
        if self._done:
            return
        self._done = True
        if not self._rich:
            if len(self._stream):
                print(bundle(self._stream, self._title)["text/plain"])
        elif self._widget is not None:
            self._replace(self._widget)
        elif len(self._stream):
            # All metrics came after the last tick: there is no widget to replace.
            _display(bundle(self._stream, self._title))

    def _open(self) -> None:
        from paibook.widgets.curves import Curves  # anywidget takes a while to import
        from paibook.widgets.output import WidgetOutput

        self._widget = Curves(self._stream, self._title, self._on_stop, **self._view)
        self._widget.update()
        self._output = WidgetOutput(self._widget, {"text/plain": self._widget.text()})

    def _replace(self, widget: Curves) -> None:
        if self._output is not None:
            self._output.replace(widget.close_with_static())
        _finished.append(widget)
        if len(_finished) > KEPT_WIDGETS:
            _finished.popleft().close()


def _display(shown: dict[str, Any]) -> None:
    from IPython.display import display

    display(shown, raw=True)


def has_rich_front_end() -> bool:
    """Whether this process is an IPython kernel (a notebook), and not a terminal or a script."""
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        return False
    return hasattr(get_ipython(), "kernel")
