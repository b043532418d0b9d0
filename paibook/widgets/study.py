"""The live view of a study: trials as they come, each with its curve and a Stop button; a static figure at the end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from paibook.widgets.live import has_rich_front_end
from paibook.widgets.study_figure import Snapshot, headline, study_bundle, study_text
from paibook.widgets.subshells import take_where_sent

if TYPE_CHECKING:
    from paibook.widgets.output import WidgetOutput

_STATIC = Path(__file__).parent / "static"
MESSAGE_SECONDS = 0.5
SHOWN = 300  # trials, the latest, and the best
KEPT_WIDGETS = 4
_finished: deque[StudyView] = deque()


class StudyView(anywidget.AnyWidget):
    """Show a study while it grows.

    Args:
        snapshot: The study as it stands; see ``Search.snapshot``.
        on_stop: Called when the study is to stop. JupyterLab may deliver the click on a thread of its own, so it must
            be safe to call from any thread; ``on_stop_trial`` likewise.
        on_stop_trial: Called with a trial's number when that trial is to stop.
    """

    _esm = _STATIC / "study.js"
    _css = _STATIC / "study.css"

    study: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True)
    headline = traitlets.Unicode("").tag(sync=True)

    def __init__(self, snapshot: Snapshot, on_stop: Callable[[], Any], on_stop_trial: Callable[[int], Any]) -> None:
        super().__init__()
        self._on_stop = on_stop
        self._on_stop_trial = on_stop_trial
        self.show(snapshot)
        self.on_msg(self._receive)
        take_where_sent(self.comm)

    def show(self, snapshot: Snapshot) -> None:
        """Show the study as it stands now; nothing is sent where nothing is new."""
        trials = snapshot["trials"]
        if len(trials) > SHOWN:
            trials = [trial for trial in trials[:-SHOWN] if trial["number"] == snapshot["best"]] + trials[-SHOWN:]
        with self.hold_sync():
            self.headline = headline(snapshot)
            self.study = {**snapshot, "trials": trials}

    def _receive(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        match content:
            case {"kind": "stop"} if self.study.get("running"):
                self._on_stop()
            case {"kind": "stop_trial", "number": int(number)} if self.study.get("running"):
                self._on_stop_trial(number)

    def __repr__(self) -> str:
        return f"{self.study.get('name', 'study')}: {self.headline}"


class LiveStudy:
    """Show a study in the current cell from its first trial to its end. Call ``tick`` often, and ``finish`` once.

    Args:
        snapshot: Gives the study as it stands.
        on_stop, on_stop_trial: See ``StudyView``.
    """

    def __init__(
        self, snapshot: Callable[[], Snapshot], on_stop: Callable[[], Any], on_stop_trial: Callable[[int], Any]
    ) -> None:
        self._snapshot = snapshot
        self._stops = (on_stop, on_stop_trial)
        self._widget: StudyView | None = None
        self._output: WidgetOutput | None = None
        self._rich = has_rich_front_end()
        self._next = 0.0
        self._done = False

    def tick(self) -> None:
        """Show what is new, at most every ``MESSAGE_SECONDS``."""
        if self._done or not self._rich or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + MESSAGE_SECONDS
        snapshot = self._snapshot()
        if self._widget is not None:
            self._widget.show(snapshot)
            if self._output is not None:
                self._output.renew(lambda: study_text(snapshot))
        elif snapshot["trials"]:
            self._widget = StudyView(snapshot, *self._stops)
            self._show(self._widget, snapshot)

    def finish(self) -> None:
        """Replace the live view by the static figure."""
        if self._done:
            return
        self._done = True
        snapshot = self._snapshot()
        if not self._rich:
            print(study_text(snapshot))
        elif self._widget is None:
            _display(study_bundle(snapshot))
        else:
            self._replace(self._widget, snapshot)

    def _show(self, widget: StudyView, snapshot: Snapshot) -> None:
        from paibook.widgets.output import WidgetOutput

        self._output = WidgetOutput(widget, {"text/plain": study_text(snapshot)})

    def _replace(self, widget: StudyView, snapshot: Snapshot) -> None:
        widget.show(snapshot)
        if self._output is not None:
            self._output.replace(study_bundle(snapshot))
        # A page that was reloaded meanwhile keeps the live view, so the last few stay there.
        _finished.append(widget)
        if len(_finished) > KEPT_WIDGETS:
            _finished.popleft().close()


def _display(shown: dict[str, Any]) -> None:
    from IPython.display import display

    display(shown, raw=True)
